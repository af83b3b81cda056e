"""The model files of a job: there, each of its kind, and fit for one another, told from names and shapes alone."""

import json
from collections.abc import Mapping
from pathlib import Path

from stillmotion.animate.config import TOYWORLD, AnimateConfig
from stillmotion.checkpoints import FileInfo, inspect
from stillmotion.config import AdapterFile
from stillmotion.errors import ConfigError, FileError, MismatchError
from stillmotion.motion import ARCHITECTURES, VARIANTS, Variant
from stillmotion.t2i.naming import named_model
from stillmotion.toyworld import motion_file, weights_folder

# What each field takes: the kinds of file that can be it, and what to call it. A LoRA of attention layers alone and a
# domain adapter are built alike, and some names do not tell which is meant: the field does.
_WANTED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "model": (("sd_checkpoint",), "a Stable Diffusion checkpoint"),
    "vae": (("vae", "sd_checkpoint", "pipeline"), "a VAE"),
    "loras": (("lora", "domain_adapter"), "a LoRA of the image model"),
    "motion": (("motion_module",), "a motion module"),
    "motion_loras": (("motion_lora",), "a MotionLoRA"),
    "domain_adapter": (("domain_adapter", "lora"), "a domain adapter"),
}
_HOME = {kinds[0]: field for field, (kinds, _) in _WANTED.items()}


def adapters_of(config: AnimateConfig) -> list[tuple[str, AdapterFile]]:
    """Return every adapter of a job with its role: `loras.0`, `motion_loras.0`, `domain_adapter`."""
    found = [(f"loras.{index}", adapter) for index, adapter in enumerate(config.loras)]
    found += [(f"motion_loras.{index}", adapter) for index, adapter in enumerate(config.motion_loras)]
    return found + ([("domain_adapter", config.domain_adapter)] if config.domain_adapter else [])


def known_model(source: str) -> str:
    """Return the image model's folder, file or hub id; raise `FileError` where it can be none of them."""
    return str(weights_folder()) if source == TOYWORLD else named_model(source)


def motion_path(config: AnimateConfig) -> Path:
    """Return the motion module's file: the one given, or the toyworld's own."""
    if config.motion is not None:
        return Path(config.motion).expanduser()
    if config.model != TOYWORLD:
        raise ConfigError(
            f"motion: {config.model} needs a motion module, for example v3_sd15_mm.ckpt; only the toyworld has its own"
        )
    return motion_file()


def inspected(config: AnimateConfig, model: str, motion: Path) -> dict[str, FileInfo]:
    """Return what each file of a job is, by role; raise `FileError` for one that is missing or of another kind.

    A model's folder or hub id is left to the loader.
    """
    found = {"motion": _of_kind("motion", motion)}
    if Path(model).is_file():
        found["model"] = _of_kind("model", model)
    if config.vae is not None:
        found["vae"] = _of_kind("vae", config.vae)
    return found | {role: _of_kind(role, adapter.path) for role, adapter in adapters_of(config)}


def check_fit(config: AnimateConfig, model: str, files: Mapping[str, FileInfo]) -> None:
    """Raise `MismatchError` where the motion module does not fit the image model, the frames or a MotionLoRA."""
    motion = files["motion"]
    variant = _variant(config, motion)
    widths, family = _unet_widths(model), files["model"].variant if "model" in files else None
    if widths and motion.widths and widths != motion.widths:
        raise MismatchError(
            f"motion: {motion.path} is a {variant.name} module ({variant.family}) for a UNet of widths "
            f"{motion.widths}, but {model} has {widths}; use a motion module made for this kind of model."
        )
    if family is not None and family != variant.family:
        raise MismatchError(
            f"motion: {motion.path} is a {variant.name} module for {variant.family} models, but {model} is {family}; "
            f"use a motion module made for this kind of model."
        )
    attends = ARCHITECTURES[motion.architecture or "transformer"].attends
    positions = motion.num_frames or variant.max_frames
    if attends and config.num_frames > positions:
        raise MismatchError(
            f"num_frames: {config.num_frames} is more than {motion.path.name} can move at once: this {variant.name} "
            f"module has positions for {positions} frames; ask for at most {positions}."
        )
    for role, info in files.items():
        if role.startswith("motion_loras") and not attends:
            raise MismatchError(
                f"{role}: {info.path} updates the attention over frames, but {motion.path} is a {motion.architecture} "
                f"module and has none; use it with a module of the architecture transformer, or leave it out."
            )
        if role.startswith("motion_loras") and info.variant == "v2" and not variant.has_mid_block:
            raise MismatchError(
                f"{role}: {info.path} moves the mid block, as v2 modules do, but {motion.path} is a {variant.name} "
                f"module without one; use it with a v2 module, or leave it out."
            )


def _variant(config: AnimateConfig, motion: FileInfo) -> Variant:
    name = config.variant or motion.variant
    if name is None:
        raise MismatchError(f"variant: {motion.path} does not say which it is. {motion.note}")
    if name not in VARIANTS:
        raise MismatchError(f"motion: {motion.path} is {motion}, which cannot be plugged in here. {motion.note}")
    return VARIANTS[name]


def _of_kind(role: str, source: str | Path) -> FileInfo:
    """Return what the file is; raise `FileError`, saying what it is and where it belongs, if it is not of that kind."""
    field = role.partition(".")[0]
    kinds, wanted = _WANTED[field]
    path = Path(source).expanduser()
    if not path.exists():
        raise FileError(f"{role}: {source} does not exist; check the path.")
    info = inspect(path)
    if info.kind not in kinds:
        home = _HOME.get(info.kind)
        advice = f"; give it as {home}" if home and home != field else ""
        raise FileError(f"{role}: {source} is {info}, expected {wanted}{advice}. {info.note}".rstrip())
    return info


def _unet_widths(model: str) -> tuple[int, ...] | None:
    """Return the widths of the UNet in a folder; None where only loading would tell."""
    try:
        config = json.loads((Path(model) / "unet" / "config.json").read_text(encoding="utf-8"))
        return tuple(int(width) for width in config["block_out_channels"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a hub id or a single file, or a folder that the loader will refuse in its own words
