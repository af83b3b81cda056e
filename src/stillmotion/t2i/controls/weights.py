"""What a control's file or folder holds, and which control it is, by its names and sizes alone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from stillmotion.errors import FileError
from stillmotion.t2i.controls.model import Kind
from stillmotion.t2i.reading import read_tensors
from stillmotion.t2i.single_file import OTHER_FILES

WEIGHT_NAMES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.fp16.bin",
)
"""Names of the weights in a diffusers folder, the preferred first."""

FAMILIES = {768: "sd15", 1024: "sd2", 2048: "sdxl"}
"""Families of image models, by the width of the text features that their UNet takes."""

FAMILY_NAMES = {"sd15": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "Stable Diffusion XL"}
"""The same, in a sentence."""

_PREFIXES = ("module.", "controlnet.", "control_model.")  # of whatever wrapped the model when it was saved

_REFUSED = {
    "lllite_unet": "a ControlNet-LLLite, which changes layers of a UNet of Stable Diffusion XL",
    "lora_controlnet": "a Control-LoRA",
    "task_embedding": "a ControlNet-Union of Stable Diffusion XL",
    "style_embedding": "a T2I-Adapter of style, which adds to the prompt; use an IP-Adapter",
    "perceiver_resampler.": "an IP-Adapter of faces, which takes features of a face recogniser; use one of pictures",
    "to_k_lora.": "an IP-Adapter of faces, which takes features of a face recogniser; use one of pictures",
}
"""Controls that are not steered with, by a piece of their names."""


@dataclass(frozen=True, kw_only=True)
class ControlWeights:
    """What a control's file or folder holds."""

    path: Path
    """What the user named."""
    file: Path
    """The file of the weights."""
    tensors: Mapping[str, Tensor]
    """The weights by name, as stored, but for the prefixes of what wrapped them."""
    config: Mapping[str, Any]
    """A diffusers folder's `config.json`; empty for a single file."""


def read_control(path: Path) -> ControlWeights:
    """Return what a control's file or diffusers folder holds.

    Raises:
        FileError: It is missing, damaged, unsafe, or holds no weights.
    """
    if not path.is_dir():
        tensors, _ = read_tensors(path)
        return ControlWeights(path=path, file=path, tensors=_unwrapped(tensors), config={})
    file = next((path / name for name in WEIGHT_NAMES if (path / name).is_file()), None)
    if file is None or not (path / "config.json").is_file():
        lacks = "config.json" if file is not None else WEIGHT_NAMES[0]
        raise FileError(f"{path} is no diffusers folder of a control model: it has no {lacks}.")
    try:
        config = dict(json.loads((path / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise FileError(f"{path / 'config.json'} cannot be read ({error}); fetch it again.") from error
    tensors, _ = read_tensors(file)
    return ControlWeights(path=path, file=file, tensors=_unwrapped(tensors), config=config)


def kind_of(weights: ControlWeights) -> Kind:
    """Return which control model it is.

    Raises:
        FileError: It is another, or none; the message says what it is as far as its names tell.
    """
    names = weights.tensors.keys()
    for piece, what in _REFUSED.items():
        if any(piece in name for name in names):
            raise FileError(f"{weights.path} is {what}. It does not steer clips here.")
    if "image_proj.norm.weight" in names and "image_proj.proj.weight" not in names:
        raise FileError(f"{weights.path} is {_REFUSED['to_k_lora.']}. It does not steer clips here.")
    if any(name.startswith("image_proj.") for name in names) and any(name.startswith("ip_adapter.") for name in names):
        return "ip_adapter"
    if any(name.startswith("controlnet_cond_embedding.") for name in names):
        return "sparse_control" if any(".motion_modules." in name for name in names) else "controlnet"
    if any(name.startswith("input_hint_block.") for name in names):
        return "controlnet"
    if any(name.startswith(("adapter.body.0.", "body.0.")) for name in names):
        return "t2i_adapter"
    pieces = {"cond_stage_model.": "a Stable Diffusion checkpoint; give it as the model"} | OTHER_FILES
    other = next((other for piece, other in pieces.items() if any(piece in name for name in names)), None)
    known = "a ControlNet, T2I-Adapter, IP-Adapter or SparseCtrl encoder"
    if other:
        raise FileError(f"{weights.path} is not {known}, but {other}.")
    raise FileError(f"{weights.path} is not {known}; its {len(names)} tensors begin with {min(names)}.")


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the model itself, without the prefixes of what it was saved in.

    The first ControlNets came with a whole Stable Diffusion beside them; that is left out.
    """
    found = dict(tensors)
    for prefix in (*_PREFIXES, *_PREFIXES):
        inside = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
        if inside and (len(inside) == len(found) or prefix == "control_model."):
            found = inside
    return found
