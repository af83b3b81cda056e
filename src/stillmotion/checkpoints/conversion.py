"""Motion modules and adapters into files, in the dialect that another program reads."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from stillmotion.checkpoints.contents import OWN_FORMAT, OWN_KEY, WEIGHT_SUFFIXES, Contents, open_contents
from stillmotion.checkpoints.loading import KIND_OF, Loaded, build
from stillmotion.checkpoints.lora_keys import original_lora_stem
from stillmotion.checkpoints.motion_keys import POSITION_ENDINGS, to_original
from stillmotion.checkpoints.writing import require_writable, write_pickle, write_tensors, written_beside
from stillmotion.errors import ConfigError, MismatchError, StillmotionError
from stillmotion.motion import LoraAdapter, MotionModule
from stillmotion.motion.variants import NormStatistics

Dialect = Literal["stillmotion", "diffusers", "original", "comfyui"]
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
_ENDINGS: dict[Dialect, tuple[str, ...]] = {
    "stillmotion": (".safetensors",),
    "diffusers": (".safetensors",),
    "original": (*PICKLES, ".safetensors"),
    "comfyui": (".safetensors",),
}


def convert(
    path: str | PathLike[str],
    to: str,
    out: str | PathLike[str] | None = None,
    *,
    variant: str | None = None,
    motion_norm: NormStatistics | None = None,
    num_attention_heads: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the motion module, MotionLoRA or domain adapter at `path` in another dialect; return the new path.

    Weights, positional encodings and dtype are kept to the bit; an alpha, which only kohya's dialect has, is folded in.
    A motion module stored without positional encodings gains them, by the formula, in every dialect but "original":
    diffusers and ComfyUI need them.

    Args:
        path: A file or folder in any dialect.
        to: The dialect; see `save`.
        out: Where to; by default beside `path`, named after it.
        variant: As for `load`.
        motion_norm: As for `load`.
        num_attention_heads: As for `load`.
        overwrite: Whether what is there may be replaced.

    Raises:
        ConfigError: `to` is no dialect, or `out` has no ending of that dialect.
        FileError: `out` exists or cannot be written, or as for `load`.
        MismatchError: As for `load`, or the dialect cannot hold a motion module of that architecture.
    """
    dialect = _known_dialect(to)
    source = Path(path).expanduser()
    target = Path(out).expanduser() if out is not None else _beside(source, dialect)
    _require_target(target, dialect, overwrite)
    contents = open_contents(source, values=True)
    model = build(contents, variant=variant, motion_norm=motion_norm, num_attention_heads=num_attention_heads)
    _require_readers(model, dialect)
    stored = any(name.endswith(POSITION_ENDINGS) for name in contents.tensors)
    own = _own(model, dialect)
    if isinstance(model, MotionModule):
        own["stores_positions"] = contents.own.get("stores_positions", stored)
    return _write(model, target, own, metadata=contents.metadata, overwrite=overwrite)


def save(
    model: Loaded,
    path: str | PathLike[str],
    *,
    dialect: Dialect = "stillmotion",
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a motion module or an adapter, whole or not at all; return the path.

    safetensors files carry `metadata` and, under "stillmotion", what they are, so that they need no guess when loaded.
    A pickle holds plain tensors, as the reference's loaders expect; only where these do not tell all (another number of
    heads, metadata) do they stand under "state_dict", the words beside them.

    Args:
        model: What to write.
        path: The file; for "diffusers" also a folder, which every name without the ending of a file is.
        dialect: "stillmotion" (diffusers' names, .safetensors), "diffusers" (a MotionAdapter folder or .safetensors;
            for adapters a folder or file that `load_lora_weights` takes), "original" (the reference's names, .ckpt or
            .safetensors), "comfyui" (what AnimateDiff-Evolved reads: the reference's names, .safetensors).
        metadata: Plain text to be kept in the file.
        overwrite: Whether what is there may be replaced. Of a folder only the files written are.

    Raises:
        ConfigError: `dialect` is unknown, or `path` has no ending of that dialect.
        FileError: `path` exists, or cannot be written.
        MismatchError: The dialect cannot hold a motion module of that architecture; only "stillmotion" holds each.
    """
    path = Path(path).expanduser()
    _require_target(path, _known_dialect(dialect), overwrite)
    _require_readers(model, dialect)
    return _write(model, path, _own(model, dialect), metadata=metadata or {}, overwrite=overwrite)


def adapter_config(motion: MotionModule) -> dict[str, Any]:
    """Return the config of a diffusers `MotionAdapter` of this module's geometry."""
    geometry = motion.geometry
    return {
        "_class_name": "MotionAdapter",
        "block_out_channels": list(geometry.block_out_channels),
        "motion_layers_per_block": geometry.layers_per_block,
        "motion_mid_block_layers_per_block": 1,
        "motion_num_attention_heads": geometry.num_attention_heads,
        "motion_norm_num_groups": geometry.norm_num_groups,
        "motion_max_seq_length": geometry.max_frames,
        "use_motion_mid_block": geometry.has_mid_block,
        "conv_in_channels": None,
    }


def _write(model: Loaded, path: Path, own: dict[str, Any], *, metadata: Mapping[str, str], overwrite: bool) -> Path:
    """Write the model with what `own` says of it, its dialect included."""
    dialect = own["dialect"]
    tensors = _motion_tensors(model, own) if isinstance(model, MotionModule) else _lora_tensors(model, dialect)
    words = {**metadata} if isinstance(model, MotionModule) else {**model.metadata, **metadata}
    told = {**words, OWN_KEY: json.dumps(own, sort_keys=True)}
    if path.suffix in PICKLES:
        plain = not words and _tell_all(model, tensors)
        return write_pickle(path, tensors if plain else {**told, "state_dict": tensors}, overwrite=overwrite)
    if path.suffix == ".safetensors":
        return write_tensors(path, tensors, told, overwrite=overwrite)
    config = adapter_config(model) if isinstance(model, MotionModule) else None
    if path.exists():
        _write_folder(path, tensors, told, config, overwrite=overwrite)
    else:
        with written_beside(path) as beside:
            _write_folder(beside, tensors, told, config, overwrite=False)
    return path


def _write_folder(
    folder: Path,
    tensors: Mapping[str, Tensor],
    told: Mapping[str, str],
    config: Mapping[str, Any] | None,
    *,
    overwrite: bool,
) -> None:
    """Write a folder as diffusers reads it: with a config for a motion module, without for a LoRA."""
    name = "pytorch_lora_weights" if config is None else "diffusion_pytorch_model"
    write_tensors(folder / f"{name}.safetensors", tensors, told, overwrite=overwrite)
    if config is not None:
        with written_beside(folder / "config.json", overwrite=overwrite) as beside:
            beside.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _own(model: Loaded, dialect: Dialect) -> dict[str, Any]:
    """Return what Stillmotion writes into a file about it."""
    own: dict[str, Any] = {"format": OWN_FORMAT, "kind": KIND_OF[type(model)], "dialect": dialect}
    if isinstance(model, MotionModule):
        own |= {"variant": model.variant.name, "motion_norm": model.variant.motion_norm}
        own |= {"stores_positions": model.architecture.attends, "geometry": asdict(model.geometry)}
    return own


def _tell_all(model: Loaded, tensors: Mapping[str, Tensor]) -> bool:
    """Return whether the bare tensors would be loaded as just this model, without a word about them."""
    here = Path("tensors.ckpt")
    try:
        again = build(Contents(path=here, file=here, container="torch_zip", tensors=tensors, metadata={}))
    except StillmotionError:
        return False
    if isinstance(model, MotionModule) and isinstance(again, MotionModule):
        return (again.variant, again.geometry) == (model.variant, model.geometry)
    return type(again) is type(model)


def _motion_tensors(motion: MotionModule, own: Mapping[str, Any]) -> dict[str, Tensor]:
    tensors = dict(motion.state_dict())
    if own["dialect"] not in ("original", "comfyui"):
        return tensors
    tensors = to_original(tensors)
    if own["dialect"] == "comfyui" or own["stores_positions"]:
        return tensors
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(POSITION_ENDINGS)}


def _lora_tensors(lora: LoraAdapter, dialect: Dialect) -> dict[str, Tensor]:
    result: dict[str, Tensor] = {}
    for target, (down, up) in lora.weights.items():
        if dialect in ("original", "comfyui"):
            stem = original_lora_stem(target)
            result |= {f"{stem}.down.weight": down, f"{stem}.up.weight": up}
        else:
            result |= {f"unet.{target}.lora_A.weight": down, f"unet.{target}.lora_B.weight": up}
    return result


def _known_dialect(name: str) -> Dialect:
    for dialect in DIALECTS:
        if dialect == name:
            return dialect
    raise ConfigError(f"to: {name!r} is no dialect; expected one of {', '.join(DIALECTS)}.")


def _require_readers(model: Loaded, dialect: Dialect) -> None:
    """Raise `MismatchError` if the programs whose dialect it is could not read the model."""
    if isinstance(model, MotionModule) and dialect != "stillmotion" and not model.architecture.known_elsewhere:
        raise MismatchError(
            f"to: a motion module of the architecture {model.architecture.name} cannot be written as {dialect!r}, since no "
            f"other program has that architecture; write it as 'stillmotion'."
        )


def _require_target(path: Path, dialect: Dialect, overwrite: bool) -> None:
    """Raise unless `path` is named as the dialect asks and can be written."""
    folder = dialect == "diffusers" and path.suffix not in WEIGHT_SUFFIXES
    if not folder and path.suffix not in _ENDINGS[dialect]:
        endings = " or ".join(_ENDINGS[dialect])
        or_folder = ", or is a folder and has no such ending" if dialect == "diffusers" else ""
        raise ConfigError(f"out: {path} cannot be written as {dialect!r}, whose files end in {endings}{or_folder}.")
    require_writable(path, overwrite=overwrite, folder=folder)


def _beside(source: Path, dialect: Dialect) -> Path:
    suffix = {"diffusers": "", "original": ".ckpt"}.get(dialect, ".safetensors")
    stem = source.stem if source.suffix in WEIGHT_SUFFIXES else source.name
    return source.parent / f"{stem}-{dialect}{suffix}"
