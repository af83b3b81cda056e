"""Models that stay loaded between jobs."""

import functools
import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from stillmotion.animate.config import TOYWORLD, AnimateConfig
from stillmotion.animate.inputs import PlannedControl
from stillmotion.animate.lessons import Lessons, lessons_of
from stillmotion.animate.model_files import adapters_of, controls_of, told_path
from stillmotion.animate.plan import Plan
from stillmotion.animate.record import ModelFile
from stillmotion.animate.script import lora_curves
from stillmotion.animate.steering import LoadedControl
from stillmotion.checkpoints import load
from stillmotion.checkpoints.files import sha256
from stillmotion.errors import MismatchError
from stillmotion.motion import DomainAdapter, LoraAdapter, MotionLora, MotionModule, Plugged, plug
from stillmotion.t2i import T2I, load_t2i
from stillmotion.t2i.controls import load_control
from stillmotion.t2i.depth import DepthModel
from stillmotion.t2i.offloading import offloaded

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Models:
    """What a job computes with."""

    t2i: T2I
    """The image model, as its file has it."""
    motion: MotionModule
    """The motion module, not plugged in."""
    adapters: tuple[tuple[LoraAdapter, float | tuple[float, ...]], ...]
    """MotionLoRAs and the domain adapter, each with its strength, over the clip too; those of strength 0 are left out."""
    lessons: Lessons
    """What the image model is taught: words, Custom Diffusion weights, LoRAs."""
    controls: tuple[LoadedControl, ...]
    """Controls, each with the pictures that it is set on; those of strength 0 are left out."""
    files: tuple[ModelFile, ...]
    """Every file that was read."""
    called_to: torch.device | None = None
    """Where the parts of the image model are called to in turns; None where all of them are where they compute."""

    @contextmanager
    def assembled(self, num_frames: int) -> Iterator[Plugged]:
        """Plug everything into the image model for clips of `num_frames`; afterwards it is what it was, in all cases.

        Raises `MismatchError` where a LoRA, the motion module or an adapter does not fit.
        """
        with ExitStack() as stack:
            stack.enter_context(self.lessons.at_work(self.t2i))
            plugged = stack.enter_context(plug(self.t2i.unet, self.motion, num_frames))
            for adapter, strength in self.adapters:
                plugged.add(adapter, strength=strength)
            for control in self.controls:
                stack.enter_context(control.model.attached())
            if self.called_to is not None:
                steering = [control.model for control in self.controls]
                stack.enter_context(offloaded(self.t2i, steering, self.called_to))
            yield plugged

    def settle(self, config: AnimateConfig) -> AnimateConfig:
        """Return the config with the size settled: the model's own where none is given."""
        side = self.t2i.native_size
        return config.replace(width=config.width or side, height=config.height or side)


class Session:
    """Keeps the models of the last job, so that the next one that uses them begins at once.

    A model is loaded again if its file has changed. One job runs in a session at a time; between jobs the image model
    is as it was loaded, with nothing plugged in.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Hashable, Any]] = {}

    def load(self, plan: Plan) -> Models:
        """Return the models of a job, loading what the last one did not leave.

        Raises `MismatchError` where a file is not the one that the plan expects.
        """
        config, t2i = plan.config, self._image_model(plan)
        motion = self._reuse(
            "motion",
            (str(plan.home), plan.dtype, _stamp(plan.motion), config.variant, config.motion_norm),
            lambda: _load_motion(plan),
        )
        wanted = [(role, adapter) for role, adapter in adapters_of(config) if _is_plugged(role) and adapter.strength]
        adapters = {role: self._adapter(role, adapter.path) for role, adapter in wanted}
        curves = {f"motion_loras.{index}": strength for index, strength in enumerate(lora_curves(config))}
        used = tuple((adapters[role], curves.get(role, adapter.strength)) for role, adapter in wanted)
        controls = tuple(self._control(plan, planned, t2i) for planned in plan.inputs.controls)
        files = (*_files(plan, t2i, adapters), *_input_files(plan))
        models = Models(
            t2i=t2i,
            motion=motion,
            adapters=used,
            lessons=Lessons.of(config),
            controls=controls,
            files=files,
            called_to=plan.device if plan.device != plan.home else None,
        )
        _check_expected(plan, models.files)
        return models

    def load_image_model(self, plan: Plan) -> tuple[T2I, tuple[ModelFile, ...]]:
        """Return the image model of a job that plugs nothing in, and every file of it and of what it is taught."""
        t2i = self._image_model(plan)
        return t2i, _files(plan, t2i, {})

    def close(self) -> None:
        """Let go of every model."""
        self._kept.clear()

    def _image_model(self, plan: Plan) -> T2I:
        key = (str(plan.home), plan.dtype, _stamp(plan.model), _stamp(plan.config.vae))
        return self._reuse("t2i", key, lambda: _load_t2i(plan))

    def _adapter(self, role: str, path: str) -> LoraAdapter:
        kind = DomainAdapter if role == "domain_adapter" else MotionLora
        return self._reuse(role, _stamp(path), lambda: load(path, expect=kind))

    def _control(self, plan: Plan, planned: PlannedControl, t2i: T2I) -> LoadedControl:
        """Return a control with its models; it belongs to the image model that is loaded now."""
        file, folder = planned.file, planned.depth_folder
        key = (_stamp(file.path), _stamp(file.image_encoder))
        model = self._reuse(
            planned.role, key, lambda: load_control(file.path, t2i=t2i, image_encoder=file.image_encoder)
        )
        depth = None
        if folder is not None:
            device = str(plan.device)
            depth = self._reuse("depth", (device, _stamp(folder)), lambda: DepthModel(folder, device))
        return LoadedControl(planned=planned, model=model, depth=depth)

    def _reuse(self, role: str, key: Hashable, make: Callable[[], T]) -> T:
        if role not in self._kept or self._kept[role][0] != key:
            # Two image models do not fit into memory at once, and controls hold on to theirs.
            stale = [kept for kept in self._kept if kept == role or (role == "t2i" and kept.startswith("controls."))]
            for kept_role in stale:
                del self._kept[kept_role]
            self._kept[role] = (key, make())
        kept: T = self._kept[role][1]
        return kept


def _load_t2i(plan: Plan) -> T2I:
    return load_t2i(plan.model, vae=plan.config.vae, dtype=plan.dtype, device=str(plan.home))


def _load_motion(plan: Plan) -> MotionModule:
    config = plan.config
    assert plan.motion is not None
    motion = load(plan.motion, expect=MotionModule, variant=config.variant, motion_norm=config.motion_norm)
    return motion.to(plan.home, plan.dtype).eval().requires_grad_(False)


def _is_plugged(role: str) -> bool:
    """Return whether an adapter is added to the plugged model; a LoRA of the image model is loaded with that."""
    return not role.startswith("loras.")


def _files(plan: Plan, t2i: T2I, adapters: Mapping[str, LoraAdapter]) -> tuple[ModelFile, ...]:
    config = plan.config
    given = {"motion": config.motion or str(plan.motion)} if plan.motion is not None else {}
    given |= {role: adapter.path for role, adapter in adapters_of(config)}
    given |= {lesson.role: lesson.path for lesson in lessons_of(config)}
    strengths: dict[str, float | None] = {role: adapter.strength for role, adapter in adapters_of(config)}
    strengths |= {lesson.role: lesson.strength for lesson in lessons_of(config)}
    others = [
        ModelFile(
            role=role,
            name=Path(path).name,
            path=told_path(path),
            sha256=plan.files[role].sha256 or "",
            kind=str(plan.files[role]),
            strength=strengths.get(role),
            applied=len(adapters[role].weights) if role in adapters else None,
        )
        for role, path in given.items()
    ]
    return (*_model_files(plan, t2i), *others)


def _model_files(plan: Plan, t2i: T2I) -> Iterator[ModelFile]:
    """Yield every file of the image model; a path inside the package is named by the toyworld, the same everywhere."""
    root = Path(plan.model)
    for file, part in t2i.files.items():
        role = "vae" if part == "vae" and plan.config.vae is not None and not file.is_relative_to(root) else "model"
        inside = file.relative_to(root).as_posix() if file.is_relative_to(root) and file != root else file.name
        path = f"{TOYWORLD}/{inside}" if plan.config.model == TOYWORLD else str(file)
        yield ModelFile(role=role, name=inside, path=path, sha256=_sha256(file), kind=part)


def _input_files(plan: Plan) -> Iterator[ModelFile]:
    """Yield the controls' files, and what they and the job read: pictures, videos, folders of frames."""
    for role, control in controls_of(plan.config):
        info = plan.files[role]
        yield ModelFile(
            role=role,
            name=Path(control.path).name,
            path=told_path(control.path),
            sha256=info.sha256 or "",
            kind=str(info),
            strength=control.strength,
        )
    for role, (path, what) in plan.inputs.read.items():
        yield ModelFile(role=role, name=path.name, path=str(path), sha256=_sha256_of_all(path.expanduser()), kind=what)


def _check_expected(plan: Plan, files: tuple[ModelFile, ...]) -> None:
    changed = [file.key for file in files if plan.expected.get(file.key, file.sha256) != file.sha256]
    if changed:
        raise MismatchError(
            f"{len(changed)} model files are not those that the clip was made with (another sha256): "
            f"{', '.join(changed)}. Give the old files back, or allow the change to make another clip."
        )


def _stamp(source: str | Path | None) -> Hashable:
    """Return what changes when the file changes: the name alone for a hub id, whose files are kept by content."""
    if source is None:
        return None
    path = Path(source).expanduser()
    files = sorted(path.rglob("*")) if path.is_dir() else [path] if path.exists() else []
    return (
        str(source),
        *((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()),
    )


def _sha256_of_all(path: Path) -> str:
    """Return the sha256 of a file; of a folder that of its files' names and sha256, by name."""
    if path.is_file():
        return _sha256(path)
    lines = (
        f"{file.relative_to(path).as_posix()} {_sha256(file)}" for file in sorted(path.rglob("*")) if file.is_file()
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _sha256(path: Path) -> str:
    file = path.expanduser()
    return _hashed(file, file.stat().st_size, file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _hashed(path: Path, size: int, modified_ns: int) -> str:  # noqa: ARG001  # the key of the cache
    return sha256(path)
