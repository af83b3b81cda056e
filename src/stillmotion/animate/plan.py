"""What can be known before a model is loaded or a file written: the job settled, or refused with the reason."""

import json
import re
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from stillmotion.animate.config import TOYWORLD, AnimateConfig
from stillmotion.animate.devices import choose_device, choose_dtype
from stillmotion.checkpoints import FileInfo, inspect
from stillmotion.config import AdapterFile
from stillmotion.errors import ConfigError, FileError, MismatchError
from stillmotion.motion import VARIANTS
from stillmotion.toyworld import weights_folder

_SINGLE_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_GUIDANCE, _TOYWORLD_GUIDANCE = 7.5, 5.0

# For each kind of file, in words, and the field that takes it.
_KINDS = {
    "motion_module": ("a motion module", "motion"),
    "motion_lora": ("a MotionLoRA", "motion_loras"),
    "domain_adapter": ("a domain adapter", "domain_adapter"),
    "lora": ("a LoRA of the image model", "loras"),
    "sd_checkpoint": ("a Stable Diffusion checkpoint", "model"),
    "pipeline": ("a diffusers model folder", "model"),
    "vae": ("a VAE", "vae"),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A job that can be done, as far as can be told without loading it."""

    config: AnimateConfig
    """The job with seed, guidance, device and dtype settled; the size too where the user gave it."""
    model: str
    """The image model's folder, file or hub id."""
    motion: Path
    """The motion module's file or folder."""
    motion_info: FileInfo
    """What the motion module is."""
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
    model = str(weights_folder()) if tiny else _known_model(config.model)
    motion, info = _known_motion(config)
    _check_fit(model, info)
    _check_frames(config.num_frames, motion, info)
    _check_adapters(config, info)
    if config.vae is not None:
        _of_kind("vae", config.vae, "vae")
    settled = config.replace(
        seed=secrets.randbelow(2**32) if config.seed is None else config.seed,
        guidance_scale=_guidance(config, tiny=tiny),
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
    )
    return Plan(
        config=settled,
        model=model,
        motion=motion,
        motion_info=info,
        device=device,
        dtype=dtype,
        notes=_notes(config, device, dtype, info),
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


def _guidance(config: AnimateConfig, *, tiny: bool) -> float:
    if config.guidance_scale is not None:
        return config.guidance_scale
    return _TOYWORLD_GUIDANCE if tiny else _GUIDANCE


def _known_model(source: str) -> str:
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / "unet" / "config.json").is_file():
            raise FileError(
                f"model: {source} is no diffusers folder (unet/config.json is missing); give the folder that holds "
                f"model_index.json, a single checkpoint file, or a hub id."
            )
        return str(path)
    if path.is_file():
        _of_kind("model", source, "sd_checkpoint")
        return str(path)
    if path.suffix.lower() in _SINGLE_FILES or not _HUB_ID.fullmatch(source):
        raise FileError(f"model: {source} does not exist; give a diffusers folder, a checkpoint file or a hub id.")
    return source


def _known_motion(config: AnimateConfig) -> tuple[Path, FileInfo]:
    if config.motion is None and config.model != TOYWORLD:
        raise ConfigError(
            f"motion: {config.model} needs a motion module, for example v3_sd15_mm.ckpt; only the toyworld has its own"
        )
    if config.motion is not None:
        return Path(config.motion).expanduser(), _of_kind("motion", config.motion, "motion_module")
    folder = weights_folder() / "motion"
    files = sorted(folder.glob("*_mm.safetensors"))
    if not files:
        raise FileError(f"motion: the toyworld's motion module is missing from {folder}; install stillmotion again.")
    return files[0], inspect(files[0])


def _of_kind(where: str, source: str, wanted: str) -> FileInfo:
    """Return what the file is; raise `FileError`, saying what it is and where it belongs, if it is not of that kind."""
    path = Path(source).expanduser()
    if not path.exists():
        raise FileError(f"{where}: {source} does not exist; check the path.")
    info = inspect(path)
    if info.kind != wanted:
        words, home = _KINDS.get(info.kind, (f"of kind {info.kind!r}", ""))
        advice = f"; give it as {home}" if home and home != where else ""
        raise FileError(f"{where}: {source} is {words}, expected {_KINDS[wanted][0]}{advice}.")
    return info


def _check_fit(model: str, info: FileInfo) -> None:
    """Refuse a motion module made for a UNet of other widths, as far as the image model says its own."""
    widths = _unet_widths(model)
    if widths and info.widths and tuple(widths) != tuple(info.widths):
        family = VARIANTS[info.variant].family if info.variant in VARIANTS else "unknown"
        raise MismatchError(
            f"motion: {info.path} is a {info.variant or 'motion'} module ({family}) for a UNet of widths "
            f"{tuple(info.widths)}, but {model} has {tuple(widths)}; use a motion module made for this kind of model."
        )


def _unet_widths(model: str) -> tuple[int, ...]:
    path = Path(model)
    if path.is_file():
        return tuple(inspect(path).widths or ())
    try:
        config = json.loads((path / "unet" / "config.json").read_text(encoding="utf-8"))
        return tuple(int(width) for width in config["block_out_channels"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()  # a hub id, or a folder that `load_t2i` will refuse in its own words


def _check_frames(num_frames: int, motion: Path, info: FileInfo) -> None:
    if info.num_frames and num_frames > info.num_frames:
        raise MismatchError(
            f"num_frames: {num_frames} is more than {motion.name} can move at once: this {info.variant or 'motion'} "
            f"module has positions for {info.num_frames} frames; ask for at most {info.num_frames}."
        )


def _check_adapters(config: AnimateConfig, motion: FileInfo) -> None:
    for where, adapter, wanted in adapters_of(config):
        info = _of_kind(where, adapter.path, wanted)
        if wanted == "motion_lora" and info.variant == "v2" and not _has_mid_block(motion):
            raise MismatchError(
                f"{where}: {adapter.path} moves the mid block, as v2 modules do, but {motion.path} is a "
                f"{motion.variant} module without one; use it with a v2 module, or leave it out."
            )


def adapters_of(config: AnimateConfig) -> list[tuple[str, AdapterFile, str]]:
    """Return every adapter of a job as (the field that names it, the file, the kind that it must be)."""
    found = [(f"loras.{index}", adapter, "lora") for index, adapter in enumerate(config.loras)]
    found += [(f"motion_loras.{index}", adapter, "motion_lora") for index, adapter in enumerate(config.motion_loras)]
    if config.domain_adapter is not None:
        found.append(("domain_adapter", config.domain_adapter, "domain_adapter"))
    return found


def _has_mid_block(motion: FileInfo) -> bool:
    return motion.variant not in VARIANTS or VARIANTS[motion.variant].has_mid_block


def _notes(config: AnimateConfig, device: torch.device, dtype: torch.dtype, info: FileInfo) -> tuple[str, ...]:
    notes = []
    if config.dtype == "auto" and dtype is torch.bfloat16 and device.type == "cpu":
        notes.append("computed in bfloat16, which this CPU has instructions for; --dtype float32 is slower and exact")
    if info.note:
        notes.append(f"{info.path}: {info.note}")
    return tuple(notes)
