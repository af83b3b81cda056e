"""What can be known before a model is loaded or a file written: the job settled, or refused with the reason."""

import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from stillmotion.animate.config import TOYWORLD, AnimateConfig
from stillmotion.animate.inputs import Inputs, plan_inputs
from stillmotion.animate.lessons import notes_on_words
from stillmotion.animate.model_files import (
    check_fit,
    check_lessons,
    inspected,
    known_model,
    motion_path,
    positions_of,
    variant_of,
)
from stillmotion.animate.script import CONTEXT_LENGTH, context_of, negatives_of, prompts_of
from stillmotion.animate.steps import with_sampling
from stillmotion.animate.unfinished import Interrupted
from stillmotion.animate.upscaling import notes_on_size, second_denoise
from stillmotion.checkpoints import FileInfo
from stillmotion.data import require_interpolation
from stillmotion.devices import choose_device, choose_dtype
from stillmotion.errors import ConfigError, FileError


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A job that can be done, as far as can be told without loading it."""

    config: AnimateConfig
    """The job with seed, sampler, steps, guidance, device and dtype settled; the size too where the user gave it."""
    model: str
    """The image model's folder, file or hub id."""
    motion: Path | None
    """The motion module's file or folder; None where the image model is moved by other means."""
    files: Mapping[str, FileInfo]
    """What each file is, by role: motion, vae, loras.0, motion_loras.0, domain_adapter; model if it is one file."""
    device: torch.device
    """Where it is computed."""
    dtype: torch.dtype
    """How numbers are held."""
    home: torch.device
    """Where models wait: the device, or the CPU where they go to the device in turns."""
    notes: tuple[str, ...] = ()
    """What the user should know."""
    inputs: Inputs = field(default_factory=Inputs)
    """The pictures and videos that it reads."""
    interrupted: Interrupted | None = None
    """Where the job stands, if it goes on."""
    expected: Mapping[str, str] = field(default_factory=dict)
    """The sha256 that each model file must have, by role and name (`replay`); nothing is expected of other files."""


def make_plan(config: AnimateConfig, expected: Mapping[str, str] | None = None, *, with_motion: bool = True) -> Plan:
    """Return the settled job; raise `ConfigError`, `FileError` or `MismatchError`, nothing being loaded or written.

    Checked are the device, the folder to write to, that every file exists and is of its kind, that the motion module
    fits the image model and has the frames, that the adapters fit the motion module, and that videos and pictures to be
    read are there and long enough. `with_motion=False` plans for the image model alone, with nothing plugged in.
    """
    device = choose_device(config.device)
    tiny = config.model == TOYWORLD
    dtype = choose_dtype(config.dtype, device, tiny=tiny)
    if config.output_dir is not None:
        require_writable(config.output_dir)
    model, motion = known_model(config.model), motion_path(config) if with_motion else None
    files = inspected(config, model, motion)
    if motion is not None:
        check_fit(config, model, files)
    check_lessons(config, model, files)
    config, sampling_notes = with_sampling(config, files)
    inputs = plan_inputs(config, files)
    if config.interpolate > 1:
        require_interpolation()
    if inputs.start is not None and config.freeinit_passes > 1:
        raise ConfigError(
            f"freeinit_passes: FreeInit makes the noise that a clip begins with, but this one begins with frames; expected 1, "
            f"got {config.freeinit_passes}"
        )
    window = variant_of(config, files["motion"]).trained_frames if motion is not None else CONTEXT_LENGTH
    settled = config.replace(
        seed=secrets.randbelow(2**32) if config.seed is None else config.seed,
        denoise=inputs.denoise,
        upscale_denoise=second_denoise(config),
        context=config.context or context_of(config).schedule,
        context_length=config.context_length or min(window, positions_of(config, files) or window),
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
        home=torch.device("cpu") if config.offload else device,
        notes=(*_notes(config, device, dtype, files), *sampling_notes, *inputs.notes, *notes_on_size(config)),
        inputs=inputs,
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
    notes += notes_on_words(config, [*prompts_of(config).values()], [*negatives_of(config).values()], files)
    if config.offload and device.type != "cuda":
        notes.append(f"offload: nothing is gained on {device.type}, whose memory is the computer's own")
    if config.dtype == "auto" and dtype is torch.bfloat16 and device.type == "cpu":
        notes.append("computed in bfloat16, which this CPU has instructions for; dtype float32 is slower and exacter")
    return tuple(notes)
