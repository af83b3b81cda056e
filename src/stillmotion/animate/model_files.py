"""The model files of a job: there, each of its kind, and fit for one another, told from names and shapes alone."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stillmotion.animate.config import TOYWORLD, AnimateConfig
from stillmotion.animate.lessons import check_partial, lessons_of
from stillmotion.animate.named import file_said
from stillmotion.checkpoints import FileInfo, inspect
from stillmotion.checkpoints.recognition import TEXT_WIDTHS, UNREAD_KIN
from stillmotion.config import AdapterFile, ControlFile
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
    "embeddings": (("textual_inversion",), "a textual inversion"),
    "custom_diffusion": (("custom_diffusion",), "Custom Diffusion weights"),
    "motion": (("motion_module",), "a motion module"),
    "motion_loras": (("motion_lora",), "a MotionLoRA"),
    "domain_adapter": (("domain_adapter", "lora"), "a domain adapter"),
    "controls": (
        ("controlnet", "t2i_adapter", "sparse_control", "ip_adapter"),
        "a ControlNet, T2I-Adapter, IP-Adapter or SparseCtrl",
    ),
}
_HOME = {kinds[0]: field for field, (kinds, _) in _WANTED.items()} | dict.fromkeys(_WANTED["controls"][0], "controls")


def adapters_of(config: AnimateConfig) -> list[tuple[str, AdapterFile]]:
    """Return every adapter of a job with its role: `loras.0`, `motion_loras.0`, `domain_adapter`.

    Names of what the toyworld brings are told as its files.
    """
    found = [(f"loras.{index}", adapter) for index, adapter in enumerate(config.loras)]
    found += [(f"motion_loras.{index}", adapter) for index, adapter in enumerate(config.motion_loras)]
    found += [("domain_adapter", config.domain_adapter)] if config.domain_adapter else []
    return [
        (role, replace(adapter, path=file_said(config, role.partition(".")[0], adapter.path)))
        for role, adapter in found
    ]


def controls_of(config: AnimateConfig) -> list[tuple[str, ControlFile]]:
    """Return every control of a job with its role: `controls.0`."""
    found = [replace(control, path=file_said(config, "controls", control.path)) for control in config.controls]
    return [(f"controls.{index}", control) for index, control in enumerate(found)]


def told_path(path: str) -> str:
    """Return a file's path as a record has it: what lies in the package by the toyworld, the same everywhere."""
    inside = Path(path).is_relative_to(weights_folder())
    return f"{TOYWORLD}/{Path(path).relative_to(weights_folder()).as_posix()}" if inside else path


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


def inspected(config: AnimateConfig, model: str, motion: Path | None) -> dict[str, FileInfo]:
    """Return what each file of a job is, by role; raise `FileError` for one that is missing or of another kind.

    A model's folder or hub id is left to the loader; without a motion module there is none to look at.
    """
    found = {"motion": _of_kind("motion", motion)} if motion is not None else {}
    if Path(model).is_file():
        found["model"] = _of_kind("model", model)
    if config.vae is not None:
        found["vae"] = _of_kind("vae", config.vae)
    found |= {role: _of_kind(role, control.path) for role, control in controls_of(config)}
    found |= {lesson.role: _of_kind(lesson.role, lesson.path, lesson.field) for lesson in lessons_of(config)}
    return found | {role: _of_kind(role, adapter.path) for role, adapter in adapters_of(config)}


def check_fit(config: AnimateConfig, model: str, files: Mapping[str, FileInfo]) -> None:
    """Raise `MismatchError` where the motion module does not fit the image model, the frames or a MotionLoRA."""
    motion = files["motion"]
    variant = variant_of(config, motion)
    widths, family = _unet_widths(model), files["model"].variant if "model" in files else _folders_family(model)
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
    positions = positions_of(config, files)
    if positions is not None and (config.context_length or 0) > positions:
        raise MismatchError(
            f"context_length: {config.context_length} is more than {motion.path.name} can move at once: this {variant.name} "
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


def positions_of(config: AnimateConfig, files: Mapping[str, FileInfo]) -> int | None:
    """Return how many frames the motion module has positions for, a window's most; None where nothing bounds them."""
    if "motion" not in files:
        return None
    motion = files["motion"]
    attends = ARCHITECTURES[motion.architecture or "transformer"].attends
    return motion.num_frames or variant_of(config, motion).max_frames if attends else None


def check_lessons(config: AnimateConfig, model: str, files: Mapping[str, FileInfo]) -> None:
    """Raise where a LoRA, textual inversion or Custom Diffusion file is not for this image model, or clip_skip too much."""
    check_partial(config)
    width = _text_width(model, files)
    for role, info in files.items():
        if not role.startswith(("loras.", "embeddings.", "custom_diffusion.")):
            continue
        if info.dialect in UNREAD_KIN:
            raise MismatchError(
                f"{role}: {info.path} is {UNREAD_KIN[info.dialect]}, which is not read here; use a LoRA."
            )
        if width and info.text_width and info.text_width != width:
            raise MismatchError(
                f"{role}: {info.path} is {info} for text of width {info.text_width}{_family(info.text_width)}, but {model} "
                f"reads text of width {width}{_family(width)}; use one that was made for this kind of model."
            )
    layers = _config_of(model, "text_encoder").get("num_hidden_layers")
    if isinstance(layers, int):
        layers -= _folders_family(model) == "sdxl"  # which never reads the last
        if config.clip_skip > layers:
            raise ConfigError(
                f"clip_skip: expected an integer from 1 to {layers}, the layers of {model}'s text encoder, "
                f"got {config.clip_skip}"
            )


def _text_width(model: str, files: Mapping[str, FileInfo]) -> int | None:
    """Return the width of the text that an image model's UNet reads; None where only loading would tell."""
    if "model" in files:
        return next((width for width, family in TEXT_WIDTHS.items() if family == files["model"].variant), None)
    width = _config_of(model, "unet").get("cross_attention_dim")
    return width if isinstance(width, int) else None


def _family(width: int) -> str:
    return f" ({TEXT_WIDTHS[width]})" if width in TEXT_WIDTHS else ""


def _config_of(model: str, part: str) -> Mapping[str, Any]:
    """Return the config of a part of a model's folder; an empty one for a hub id, a single file or a folder that is not whole."""
    try:
        config = json.loads((Path(model) / part / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def variant_of(config: AnimateConfig, motion: FileInfo) -> Variant:
    """Return the variant of a motion module's file; raise `MismatchError` where it is not known, or none of these."""
    name = config.variant or motion.variant
    if name is None:
        raise MismatchError(f"variant: {motion.path} does not say which it is. {motion.note}")
    if name not in VARIANTS:
        raise MismatchError(f"motion: {motion.path} is {motion}, which cannot be plugged in here. {motion.note}")
    return VARIANTS[name]


def _of_kind(role: str, source: str | Path, field: str = "") -> FileInfo:
    """Return what the file is; raise `FileError`, saying what it is and where it belongs, if it is not of that kind.

    The role begins with the field that takes the file, unless that is said.
    """
    field = field or role.partition(".")[0]
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


def _folders_family(model: str) -> str | None:
    """Return the family of the image model in a folder; None where only loading would tell."""
    config = _config_of(model, "unet")
    return ("sdxl" if config.get("addition_embed_type") == "text_time" else "sd15") if config else None


def _unet_widths(model: str) -> tuple[int, ...] | None:
    """Return the widths of the UNet in a folder; None where only loading would tell."""
    try:
        config = json.loads((Path(model) / "unet" / "config.json").read_text(encoding="utf-8"))
        return tuple(int(width) for width in config["block_out_channels"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a hub id or a single file, or a folder that the loader will refuse in its own words
