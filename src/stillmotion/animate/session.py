"""Models that stay loaded between jobs."""

import functools
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from stillmotion.animate.config import TOYWORLD, AnimateConfig
from stillmotion.animate.model_files import adapters_of
from stillmotion.animate.plan import Plan
from stillmotion.animate.record import ModelFile
from stillmotion.checkpoints import load
from stillmotion.checkpoints.files import sha256
from stillmotion.config import AdapterFile
from stillmotion.errors import MismatchError
from stillmotion.motion import DomainAdapter, LoraAdapter, MotionLora, MotionModule, plug
from stillmotion.t2i import T2I, apply_lora, load_t2i

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Models:
    """What a job computes with."""

    t2i: T2I
    """The image model, as its file has it."""
    motion: MotionModule
    """The motion module, not plugged in."""
    adapters: tuple[tuple[LoraAdapter, float], ...]
    """MotionLoRAs and the domain adapter, each with its strength; those of strength 0 are left out."""
    loras: tuple[AdapterFile, ...]
    """LoRAs of the image model; those of strength 0 are left out."""
    files: tuple[ModelFile, ...]
    """Every file that was read."""

    @contextmanager
    def assembled(self, num_frames: int) -> Iterator[None]:
        """Plug everything into the image model for clips of `num_frames`; afterwards it is what it was, in all cases.

        Raises `MismatchError` where a LoRA, the motion module or an adapter does not fit.
        """
        with ExitStack() as stack:
            for lora in self.loras:
                stack.callback(apply_lora(self.t2i, lora.path, lora.strength).remove)
            plugged = stack.enter_context(plug(self.t2i.unet, self.motion, num_frames))
            for adapter, strength in self.adapters:
                plugged.add(adapter, strength=strength)
            yield

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
        config = plan.config
        place = (str(plan.device), plan.dtype)
        t2i = self._reuse("t2i", (*place, _stamp(plan.model), _stamp(config.vae)), lambda: _load_t2i(plan))
        motion = self._reuse(
            "motion",
            (*place, _stamp(plan.motion), config.variant, config.motion_norm),
            lambda: _load_motion(plan),
        )
        wanted = [(role, adapter) for role, adapter in adapters_of(config) if _is_plugged(role) and adapter.strength]
        adapters = {role: self._adapter(role, adapter.path) for role, adapter in wanted}
        used = tuple((adapters[role], adapter.strength) for role, adapter in wanted)
        loras = tuple(lora for lora in config.loras if lora.strength)
        files = _files(plan, t2i, adapters)
        models = Models(t2i=t2i, motion=motion, adapters=used, loras=loras, files=files)
        _check_expected(plan, models.files)
        return models

    def close(self) -> None:
        """Let go of every model."""
        self._kept.clear()

    def _adapter(self, role: str, path: str) -> LoraAdapter:
        kind = DomainAdapter if role == "domain_adapter" else MotionLora
        return self._reuse(role, _stamp(path), lambda: load(path, expect=kind))

    def _reuse(self, role: str, key: Hashable, make: Callable[[], T]) -> T:
        if role not in self._kept or self._kept[role][0] != key:
            self._kept.pop(role, None)  # two image models do not fit into memory at once
            self._kept[role] = (key, make())
        kept: T = self._kept[role][1]
        return kept


def _load_t2i(plan: Plan) -> T2I:
    return load_t2i(plan.model, vae=plan.config.vae, dtype=plan.dtype, device=str(plan.device))


def _load_motion(plan: Plan) -> MotionModule:
    config = plan.config
    motion = load(plan.motion, expect=MotionModule, variant=config.variant, motion_norm=config.motion_norm)
    return motion.to(plan.device, plan.dtype).eval().requires_grad_(False)


def _is_plugged(role: str) -> bool:
    """Return whether an adapter is added to the plugged model; a LoRA of the image model is loaded with that."""
    return not role.startswith("loras.")


def _files(plan: Plan, t2i: T2I, adapters: Mapping[str, LoraAdapter]) -> tuple[ModelFile, ...]:
    config = plan.config
    given = {"motion": config.motion or f"{TOYWORLD}/motion/{plan.motion.name}"}
    given |= {role: adapter.path for role, adapter in adapters_of(config)}
    strengths = {role: adapter.strength for role, adapter in adapters_of(config)}
    others = [
        ModelFile(
            role=role,
            name=Path(path).name,
            path=path,
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


def _sha256(path: Path) -> str:
    file = path.expanduser()
    return _hashed(file, file.stat().st_size, file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _hashed(path: Path, size: int, modified_ns: int) -> str:  # noqa: ARG001  # the key of the cache
    return sha256(path)
