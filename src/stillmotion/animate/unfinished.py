"""A job in the making, on disk: what it takes to go on where it stood, should it be interrupted.

Once a job has worked for `state_every` seconds, a folder that ends in `.unfinished` lies beside its run folders: `run.json`
says the job and which of its clips are finished, `state.safetensors` holds the latents of the clip at work after a step and
what the sampler remembers. Each is replaced as a whole. The folder goes when the last clip is finished.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from stillmotion.animate.config import AnimateConfig
from stillmotion.animate.run_folder import run_name
from stillmotion.animate.script import first_words
from stillmotion.checkpoints.files import read_tensors
from stillmotion.checkpoints.writing import write_tensors, written_beside
from stillmotion.errors import Cancelled, FileError, MismatchError
from stillmotion.sampling import Step
from stillmotion.shapes import fold_frames, unfold_frames

SUFFIX, RECORD, STATE, LOCK = ".unfinished", "run.json", "state.safetensors", ".lock"


@dataclass(frozen=True, kw_only=True, eq=False)
class Interrupted:
    """Where an interrupted job stands."""

    folder: Path
    """The folder that it left."""
    finished: tuple[str, ...] = ()
    """Names of the run folders of its finished clips, the first ones."""
    step: Step | None = None
    """The step of the next clip that was kept last; None where that clip begins."""


class Unfinished:
    """Keeps a job while it is made; nothing is on disk before it has worked for `state_every` seconds."""

    def __init__(
        self, config: AnimateConfig, record: Mapping[str, Any], interrupted: Interrupted | None = None
    ) -> None:
        self._config, self._record = config, record
        self._folder = interrupted.folder if interrupted else None
        self._finished = list(interrupted.finished) if interrupted else []
        self._step = interrupted.step if interrupted else None
        self._lock: FileLock | None = None
        self._kept_at = time.monotonic()

    @property
    def num_finished(self) -> int:
        """Return how many clips are finished."""
        return len(self._finished)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the job that is done inside: at its end the folder goes, otherwise it stays; `Cancelled` says so then.

        Raises `FileError` if another process is at work in the folder of a job that goes on.
        """
        try:
            if self._folder is not None:
                self._claim(self._folder)
            yield
        except Cancelled as stop:
            if self._folder is None:
                raise
            raise Cancelled(
                f"{stop} {self._folder} is kept: `stillmotion replay --resume` goes on from there."
            ) from stop
        else:
            self._release()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
        finally:
            self._release()

    def begin(self) -> Step | None:
        """Return the step after which the next clip goes on, once; None where a clip begins."""
        step, self._step = self._step, None
        return step

    def watched(self, steps: Iterator[Step]) -> Iterator[Step]:
        """Yield the steps of the clip at work, and keep one of them whenever it is time."""
        for step in steps:
            yield step
            if step.is_whole and self._is_time():
                self._keep(step)

    def finished(self, folder: Path | None) -> None:
        """Remember that the clip at work is finished."""
        self._finished.append(folder.name if folder else "")
        if self._folder is not None or self._is_time():
            made = self._made()
            self._write_record(made)
            (made / STATE).unlink(missing_ok=True)

    def _is_time(self) -> bool:
        config = self._config
        if config.output_dir is None or config.state_every is None:
            return False
        return time.monotonic() - self._kept_at >= config.state_every

    def _keep(self, step: Step) -> None:
        tensors: dict[str, Tensor] = {"latents": fold_frames(step.latents)}
        said = {
            "config": _identity(self._record["config"]),
            "clip": str(len(self._finished)),
            "step": str(step.index),
            "total": str(step.total),
            "memory": json.dumps({name: _said(value, tensors) for name, value in step.memory.items()}),
        }
        write_tensors(self._made() / STATE, tensors, said, overwrite=True)
        self._kept_at = time.monotonic()

    def _made(self) -> Path:
        """Return the folder, with the record in it."""
        if self._folder is None:
            config = self._config
            assert config.output_dir is not None
            name = run_name(first_words(config), config.seed or 0)
            for number in count(1):
                folder = config.output_dir / f"{name}{f'-{number}' if number > 1 else ''}{SUFFIX}"
                try:
                    folder.mkdir(parents=True)
                except FileExistsError:
                    continue
                except OSError as error:
                    raise FileError(f"output_dir: {folder} cannot be made: {error.strerror}.") from error
                break
            self._claim(folder)
            self._folder = folder
            self._write_record(folder)
        return self._folder

    def _write_record(self, folder: Path) -> None:
        whole = {**self._record, "unfinished": {"finished": self._finished}}
        with written_beside(folder / RECORD, overwrite=True) as beside:
            beside.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def _claim(self, folder: Path) -> None:
        lock = FileLock(folder / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise FileError(f"{folder}: another process is at work in it; wait for it, or stop it.") from error
        except OSError as error:
            raise FileError(f"{folder}: cannot be written: {error.strerror}.") from error
        self._lock = lock

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def find_interrupted(source: Path, record: Mapping[str, Any], config: AnimateConfig) -> Interrupted:
    """Return where the job of a record, read from a folder or the `run.json` in it, stands; `config` is the record's.

    Raises:
        FileError: It is finished, or its state is damaged.
        MismatchError: The state belongs to another job than the record.
    """
    told = record.get("unfinished")
    if not isinstance(told, dict):
        raise FileError(
            f"{source}: this run is finished, there is nothing to go on with; without --resume it is made again."
        )
    folder = source if source.is_dir() else source.parent
    names = told.get("finished")
    finished = tuple(str(name) for name in names) if isinstance(names, list) else ()
    if len(finished) >= config.num_clips:
        raise FileError(f"{source}: every clip of this run is finished: {', '.join(finished)}. The folder can go.")
    step = None
    if (folder / STATE).exists():
        step = _read_state(folder / STATE, record["config"], len(finished), config.num_frames)
    return Interrupted(folder=folder, finished=finished, step=step)


def _read_state(path: Path, config: Mapping[str, Any], clip: int, num_frames: int) -> Step | None:
    """Return the step that was kept last; None where it is of a clip that is finished by now."""
    tensors, said = read_tensors(path)
    if said.get("config") != _identity(config):
        raise MismatchError(
            f"{path}: this state belongs to another job than the {RECORD} beside it; put back the one that was written with "
            f"it, or remove {STATE} to begin the clip anew."
        )
    if said.get("clip") != str(clip):
        return None
    try:
        memory = json.loads(said["memory"])
        step = Step(
            index=int(said["step"]),
            total=int(said["total"]),
            latents=unfold_frames(tensors["latents"].clone(), num_frames),
            memory={str(name): _meant(value, tensors) for name, value in memory.items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{path}: this state is damaged ({error}); remove it to begin the clip anew.") from error
    if not 0 < step.index <= step.total:
        raise FileError(
            f"{path}: this state is damaged (step {step.index} of {step.total}); remove it to begin the clip anew."
        )
    return step


def _identity(config: Mapping[str, Any]) -> str:
    """Return what is equal for equal jobs, wherever they are written to."""
    plain = json.loads(json.dumps({name: value for name, value in config.items() if name != "output_dir"}))
    return sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _said(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return a value as JSON holds it, its tensors put among `tensors`."""
    if isinstance(value, list):
        return [_said(one, tensors) for one in value]
    if isinstance(value, Tensor):
        name = f"memory.{len(tensors)}"
        tensors[name] = value
        return {"tensor": name}
    return value


def _meant(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return what `_said` was told; tensors no longer depend on the file."""
    if isinstance(value, list):
        return [_meant(one, tensors) for one in value]
    return tensors[value["tensor"]].clone() if isinstance(value, dict) else value
