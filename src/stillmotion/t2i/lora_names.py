"""LoRA files of image models, whatever program wrote them: which layer each tensor updates, and by how much.

Two dialects are common. kohya's names a layer by its path with underscores, `lora_unet_down_blocks_0_…to_q.lora_down.weight`,
with an `alpha` beside; some programs use the original's block numbers there. diffusers' and peft's name the path itself,
`unet.down_blocks.0.…to_q.lora_A.weight`, and may keep alphas in the file's metadata.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from stillmotion.errors import MismatchError

OTHER_KINDS = {
    r"\.dora_scale$|\.lora_magnitude_vector": "a DoRA",
    r"\.hada_w": "a LoHa",
    r"\.lokr_w": "a LoKr",
    r"\.lora_mid\.": "a LoCon in Tucker form",
    r"\.b?oft_": "an OFT",
    r"\.on_input$": "an IA3",
    r"\.[ab][12]\.weight$": "a GLoRA",
    r"\.diff(_b)?$": "a difference of whole weights",
    r"\.lora_B.*\.bias$": "a LoRA with biases",
}
"""Relatives of LoRA, by a piece of their names, which are not read here."""

_KOHYA = re.compile(r"lora_(?P<part>unet|te1?)_(?P<layer>[^.]+)\.(?P<what>.+)")
_PEFT = re.compile(r"(?P<layer>.+?)\.lora_(?P<half>[AB])(?:\.[\w-]+)?\.weight")
_DIFFUSERS = re.compile(r"(?P<layer>.+?)\.lora(?:_linear_layer)?[._](?P<what>(?:down|up)\.weight)")
_PROCESSOR = re.compile(r"(?P<layer>.+?)(?:\.processor)?\.(?P<end>to_[qkv]|to_out)_lora\.(?P<what>(?:down|up)\.weight)")
_TEXT_ENDS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}  # diffusers before 0.18

Half = Literal["down", "up", "alpha"]


@dataclass
class Update:
    """What a file says of one layer."""

    part: str
    """ "unet" or "text_encoder"."""
    layer: str
    """The layer as the file names it."""
    down: Tensor | None = None
    up: Tensor | None = None
    alpha: float | None = None


@dataclass(frozen=True, kw_only=True)
class LoraFile:
    """The updates of a LoRA file, and what of it is left alone."""

    updates: list[Update]
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Tensors that are no updates, and why."""


def read_updates(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], where: str) -> LoraFile:
    """Return what the tensors of a LoRA file update, in any dialect.

    Raises:
        MismatchError: They are of a relative of LoRA, of an SDXL model, of a motion module, or no LoRA at all, or an
            update lacks a half.
    """
    _require_lora(tensors, where)
    updates: dict[tuple[str, str], Update] = {}
    skipped = {}
    for name, value in tensors.items():
        said = _parse(name)
        if said is None:
            if "lora" in name:
                raise MismatchError(f"{where} has a tensor of a LoRA that is not known: {name}.")
            skipped[name] = "none of a LoRA's"
            continue
        part, layer, half = said
        update = updates.setdefault((part, layer), Update(part, layer))
        setattr(update, half, float(value) if half == "alpha" else value)
    halves = [update.layer for update in updates.values() if update.down is None or update.up is None]
    if halves:
        raise MismatchError(
            f"{where} is not whole: {len(halves)} of {len(updates)} updates lack a half, first {halves[0]}."
        )
    _add_alphas(list(updates.values()), metadata)
    return LoraFile(updates=list(updates.values()), skipped=skipped)


def _require_lora(tensors: Mapping[str, Tensor], where: str) -> None:
    if any("motion_modules." in name for name in tensors):
        raise MismatchError(f"{where} updates a motion module; give it as one of motion_loras, not of loras.")
    for piece, kind in OTHER_KINDS.items():
        named = [name for name in tensors if re.search(piece, name)]
        if named:
            raise MismatchError(f"{where} is {kind} ({named[0]}), which this version does not read; it reads LoRAs.")
    if any(name.startswith(("lora_te2_", "text_encoder_2.")) for name in tensors):
        raise MismatchError(f"{where} is a LoRA of Stable Diffusion XL; it does not fit a Stable Diffusion 1.x model.")
    if not any("lora" in name for name in tensors):
        raise MismatchError(f"{where} is no LoRA; its {len(tensors)} tensors begin with {min(tensors)}.")


def _parse(name: str) -> tuple[str, str, Half] | None:
    """Return the part and the layer that a tensor belongs to, and what of the update it is."""
    if kohya := _KOHYA.fullmatch(name):
        half = _half(kohya["what"].removeprefix("lora_"))
        return ("unet" if kohya["part"] == "unet" else "text_encoder", kohya["layer"], half) if half else None
    name = name.removeprefix("base_model.model.")
    part = "text_encoder" if name.startswith("text_encoder.") else "unet"
    name = name.removeprefix(f"{part}.")
    if name.endswith(".alpha"):
        return part, name.removesuffix(".alpha"), "alpha"
    if processor := _PROCESSOR.fullmatch(name):
        end = _TEXT_ENDS[processor["end"]] if part == "text_encoder" else processor["end"].replace("to_out", "to_out.0")
        layer, half = f"{processor['layer']}.{end}", _half(processor["what"])
    elif peft := _PEFT.fullmatch(name):
        layer, half = peft["layer"], "down" if peft["half"] == "A" else "up"
    elif diffusers := _DIFFUSERS.fullmatch(name):
        layer, half = diffusers["layer"], _half(diffusers["what"])
    else:
        return None
    return (part, layer, half) if half else None


def _half(what: str) -> Half | None:
    halves: dict[str, Half] = {"down.weight": "down", "up.weight": "up", "alpha": "alpha"}
    return halves.get(what)


def _add_alphas(updates: list[Update], metadata: Mapping[str, str]) -> None:
    """Fill in the alphas that diffusers keeps in a file's metadata, as peft reads them."""
    try:
        said: dict[str, Any] = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        said = {}
    for update in updates:
        general = said.get(f"{update.part}.lora_alpha")
        if general is None or update.alpha is not None or update.down is None:
            continue
        patterns = said.get(f"{update.part}.alpha_pattern") or {}
        own = (alpha for key, alpha in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", update.layer))
        update.alpha = float(next(own, general))
        if said.get(f"{update.part}.use_rslora"):  # scaled by the root of the rank instead of the rank
            update.alpha *= update.down.shape[0] ** 0.5
