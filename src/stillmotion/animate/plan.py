"""What can be known before a model is loaded or a file written: the job settled, or refused with the reason."""

import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from stillmotion.animate.config import TOYWORLD, AnimateConfig
from stillmotion.animate.model_files import check_fit, inspected, known_model, motion_path
from stillmotion.checkpoints import FileInfo
from stillmotion.devices import choose_device, choose_dtype
from stillmotion.errors import FileError

_GUIDANCE, _TOYWORLD_GUIDANCE = 7.5, 5.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A job that can be done, as far as can be told without loading it."""

    config: AnimateConfig
    """The job with seed, guidance, device and dtype settled; the size too where the user gave it."""
    model: str
    """The image model's folder, file or hub id."""
    motion: Path
    """The motion module's file or folder."""
    files: Mapping[str, FileInfo]
    """What each file is, by role: motion, vae, loras.0, motion_loras.0, domain_adapter; model if it is one file."""
    device: torch.device
    """Where it is computed."""
    dtype: torch.dtype
    """How numbers are held."""
    notes: tuple[str, ...] = ()
    """What the user should know."""
    expected: Mapping[str, str] = field(default_factory=dict)
    """The sha256 that each model file must have, by role and name (`replay`); nothing is expected of other files."""


def make_plan(config: AnimateConfig, expected: Mapping[str, str] | None = None) -> Plan:
    """Return the settled job; raise `ConfigError`, `FileError` or `MismatchError`, nothing being loaded or written.

    Checked are the device, the folder to write to, that every file exists and is of its kind, that the motion module
    fits the image model and has the frames, and that the adapters fit the motion module.
    """
    device = choose_device(config.device)
    tiny = config.model == TOYWORLD
    dtype = choose_dtype(config.dtype, device, tiny=tiny)
    if config.output_dir is not None:
        require_writable(config.output_dir)
    model, motion = known_model(config.model), motion_path(config)
    files = inspected(config, model, motion)
    check_fit(config, model, files)
    guidance = _TOYWORLD_GUIDANCE if tiny else _GUIDANCE
    settled = config.replace(
        seed=secrets.randbelow(2**32) if config.seed is None else config.seed,
        guidance_scale=guidance if config.guidance_scale is None else config.guidance_scale,
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
    )
    return Plan(
        config=settled,
        model=model,
        motion=motion,
        files=files,
        device=device,
        dtype=dtype,
        notes=_notes(config, device, dtype, files),
        expected=dict(expected or {}),
    )


def require_writable(folder: Path) -> None:
    """Raise `FileError` unless files can be made in `folder`, which may not exist yet; nothing is left there."""
    nearest = folder.absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise FileError(f"output_dir: {folder} cannot be a folder, since {nearest} is a file; choose another.")
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(f"output_dir: nothing can be written to {folder} ({reason}); choose another.") from error


def _notes(
    config: AnimateConfig, device: torch.device, dtype: torch.dtype, files: Mapping[str, FileInfo]
) -> tuple[str, ...]:
    notes = [f"{role}: {info.note}" for role, info in files.items() if info.note]
    if config.dtype == "auto" and dtype is torch.bfloat16 and device.type == "cpu":
        notes.append("computed in bfloat16, which this CPU has instructions for; dtype float32 is slower and exacter")
    return tuple(notes)
