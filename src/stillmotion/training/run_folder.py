"""A run's folder: one run at a time, the config it began with, a line of metrics per step."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from filelock import FileLock, Timeout

from stillmotion.checkpoints.writing import UNFINISHED, remove_unfinished, written_beside
from stillmotion.config import from_yaml
from stillmotion.errors import ConfigError, FileError
from stillmotion.training.loop import StepDone
from stillmotion.training.run_config import RunConfig
from stillmotion.training.state import checkpoints
from stillmotion.training.world import World

CONFIG, METRICS, LOCK = "config.yaml", "metrics.jsonl", ".lock"
VALIDATION_LOSS = "validation_loss"
FREE = frozenset(
    {
        *(
            "num_steps",
            "decay_from",
            "checkpoint_every",
            "validate_every",
            "sample_every",
            "sample_prompts",
            "motion_guard",
            "strategy",
            "dialects",
            "trigger",
        ),
        *("save_dtype", "licence", "num_workers", "device", "micro_batch_size", "gradient_checkpointing", "output_dir"),
    }
)
"""What may change when a run goes on; anything else would make another run of it."""


@contextmanager
def claimed(config: RunConfig, world: World) -> Iterator[Path]:
    """Give the run's folder, held by this run alone; the first process of a world holds it for all.

    Raises `FileError` if another run is at work in it or it cannot be written, `ConfigError` if a run of another config
    stands in it.
    """
    folder = config.output_dir
    if world.rank:
        world.wait()
        yield folder
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise FileError(
            f"output_dir: another run is at work in {folder}; wait for it, stop it, or choose another."
        ) from error
    except OSError as error:
        raise FileError(f"output_dir: {folder} cannot be written: {error.strerror}.") from error
    try:
        check_same(config)  # again: another run may have begun, and ended, since the first look
        remove_unfinished(folder)
        with written_beside(folder / CONFIG, overwrite=True) as beside:
            beside.write_text(config.to_yaml(sentences=True), encoding="utf-8")
        world.wait()
        yield folder
    finally:
        lock.release()


def check_same(config: RunConfig) -> None:
    """Raise `ConfigError` if the folder holds a run of another config, naming what differs."""
    folder = config.output_dir
    others = [path for path in folder.glob("*") if path.name != LOCK and not path.match(UNFINISHED)]
    if others and not (folder / CONFIG).exists():
        raise FileError(f"output_dir: {folder} holds other files and no run; choose a new folder.")
    if not checkpoints(folder):
        return
    try:
        before, now = from_yaml(type(config), folder / CONFIG).to_dict(), config.to_dict()
    except ConfigError as error:
        raise ConfigError(
            f"output_dir: {folder} holds a run of another kind, or of another version ({error}); choose a new folder."
        ) from error
    changed = [name for name in now if name not in FREE and now[name] != before.get(name)]
    if changed:
        told = "; ".join(f"{name} was {before.get(name)!r}, now {now[name]!r}" for name in changed)
        raise ConfigError(f"output_dir: {folder} holds a run of another config ({told}); choose a new folder.")


class Metrics:
    """`metrics.jsonl`, written by the first process: a line per step; lines of steps that are done again are dropped.

    Where TensorBoard is installed its files are written too, in `tensorboard/`.
    """

    def __init__(self, folder: Path, first_step: int, world: World) -> None:
        self.lacks_validation = False
        """Whether no validation of the step that the run goes on from is noted; for the first process to say."""
        if world.rank:
            self._file: TextIO | None = None
            self._board: Any = None
            return
        path = folder / METRICS
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = [line for line in before.splitlines() if _step_of(line) <= first_step]
        self.lacks_validation = not any(VALIDATION_LOSS in line and _step_of(line) == first_step for line in lines)
        kept = "".join(f"{line}\n" for line in lines)
        if kept != before:  # the last line may lack nothing but its end
            with written_beside(path, overwrite=True) as beside:
                beside.write_text(kept, encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        self._board = _board(folder / "tensorboard", first_step)

    def write(self, values: Mapping[str, Any]) -> None:
        """Add a line."""
        if self._file is not None:
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if name != "step" and value is not None:
                    self._board.add_scalar(name, value, values["step"])

    def note(self, done: StepDone) -> None:
        """Add a step's line."""
        self.write({"step": done.step, "loss": done.loss, "seconds": done.seconds, **done.figures})

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


def _board(folder: Path, first_step: int) -> Any:
    """Return a writer of TensorBoard's files, which hides steps that are done again; None where it is not installed."""
    if find_spec("tensorboard") is None:
        return None
    return import_module("torch.utils.tensorboard").SummaryWriter(str(folder), purge_step=first_step + 1)


def _step_of(line: str) -> float:
    """Return the step of a line; infinity for one that was cut off while it was written."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
