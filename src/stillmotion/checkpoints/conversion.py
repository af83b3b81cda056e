"""Motion modules and adapters into files, in the dialect that another program reads."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Literal

from torch import Tensor

from stillmotion.checkpoints.contents import OWN_FORMAT, OWN_KEY
from stillmotion.checkpoints.loading import KIND_OF, Loaded, load
from stillmotion.checkpoints.lora_keys import original_lora_stem
from stillmotion.checkpoints.motion_keys import to_original
from stillmotion.checkpoints.writing import require_writable, write_pickle, write_tensors
from stillmotion.errors import ConfigError
from stillmotion.motion import LoraAdapter, MotionModule

Dialect = Literal["stillmotion", "diffusers", "original", "comfyui"]
DIALECTS: tuple[Dialect, ...] = ("stillmotion", "diffusers", "original", "comfyui")


def convert(
    path: str | PathLike[str],
    to: str,
    out: str | PathLike[str] | None = None,
    *,
    variant: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the motion module, MotionLoRA or domain adapter at `path` in another dialect; return the new path.

    `to` is "diffusers" (a folder, or a file where `out` ends in .safetensors), "original" (the reference's names; a
    pickle of plain tensors where `out` ends in .ckpt), "comfyui" (the reference's names in safetensors) or "stillmotion".
    Without `out` the result stands beside the file, named after it. Weights and dtype are kept to the bit.

    Raises `ConfigError` for an unknown dialect and what `load` raises; nothing is overwritten unless `overwrite`.
    """
    if to not in DIALECTS:
        raise ConfigError(f"to: {to!r} is no dialect; expected one of {', '.join(DIALECTS)}.")
    source = Path(path).expanduser()
    target = Path(out).expanduser() if out is not None else _beside(source, to)
    require_writable(target, overwrite=overwrite)
    return save(load(source, variant=variant), target, dialect=to, overwrite=overwrite)  # type: ignore[arg-type]


def save(
    model: Loaded,
    path: str | PathLike[str],
    *,
    dialect: Dialect = "stillmotion",
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a motion module or an adapter in a dialect, whole or not at all; return the path.

    safetensors files carry `metadata` and, under "stillmotion", what they are; a `.ckpt` has no place for either.
    """
    path = Path(path).expanduser()
    tensors = _motion_tensors(model, dialect) if isinstance(model, MotionModule) else _lora_tensors(model, dialect)
    told = {**(metadata or {}), OWN_KEY: json.dumps(_own(model), sort_keys=True)}
    if dialect == "diffusers" and path.suffix != ".safetensors":
        name = "diffusion_pytorch_model" if isinstance(model, MotionModule) else "pytorch_lora_weights"
        write_tensors(path / f"{name}.safetensors", tensors, {"format": "pt", **told}, overwrite=overwrite)
        if isinstance(model, MotionModule):
            (path / "config.json").write_text(json.dumps(adapter_config(model), indent=2) + "\n", encoding="utf-8")
        return path
    if path.suffix in (".ckpt", ".pt", ".pth"):
        return write_pickle(path, tensors, overwrite=overwrite)
    return write_tensors(path, tensors, {"format": "pt", **told}, overwrite=overwrite)


def adapter_config(motion: MotionModule) -> dict[str, object]:
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


def _own(model: Loaded) -> dict[str, object]:
    own: dict[str, object] = {"format": OWN_FORMAT, "kind": KIND_OF[type(model)]}
    if isinstance(model, MotionModule):
        own |= {"variant": model.variant.name, "motion_norm": model.variant.motion_norm}
        own["geometry"] = asdict(model.geometry)
    return own


def _motion_tensors(motion: MotionModule, dialect: Dialect) -> dict[str, Tensor]:
    tensors = motion.state_dict()
    return to_original(tensors) if dialect in ("original", "comfyui") else dict(tensors)


def _lora_tensors(lora: LoraAdapter, dialect: Dialect) -> dict[str, Tensor]:
    result: dict[str, Tensor] = {}
    for target, (down, up) in lora.weights.items():
        if dialect in ("original", "comfyui"):
            stem = original_lora_stem(target)
            result |= {f"{stem}.down.weight": down, f"{stem}.up.weight": up}
        else:
            result |= {f"unet.{target}.lora_A.weight": down, f"unet.{target}.lora_B.weight": up}
    return result


def _beside(source: Path, to: str) -> Path:
    suffix = {"diffusers": "", "original": ".ckpt"}.get(to, ".safetensors")
    stem = source.stem if source.is_file() else source.name
    return source.parent / f"{stem}-{to}{suffix}"
