"""LoRA files of image models, whatever program wrote them: which layer each tensor updates, and by how much.

Two dialects are common. kohya's names a layer by its path with underscores, `lora_unet_down_blocks_0_…to_q.lora_down.weight`,
with an `alpha` beside; some programs use the original's block numbers there. diffusers' and peft's name the path itself,
`unet.down_blocks.0.…to_q.lora_A.weight`, and may keep alphas in the file's metadata. LyCORIS' LoHa and LoKr bear kohya's.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from stillmotion.errors import MismatchError
from stillmotion.t2i.lycoris import FACTORS, lacks_a_part

OTHER_KINDS = {
    r"\.dora_scale$|\.lora_magnitude_vector": "a DoRA",
    r"\.b?oft_": "an OFT",
    r"\.on_input$": "an IA3",
    r"\.[ab][12]\.weight$": "a GLoRA",
    r"\.lora_B.*\.bias$": "a LoRA with biases",
}
"""Relatives of LoRA, by a piece of their names, which are not read here."""

_KOHYA = re.compile(r"lora_(?P<part>unet|te[12]?)_(?P<layer>[^.]+)\.(?P<what>.+)")
_KOHYA_PARTS = {"unet": "unet", "te": "text_encoder", "te1": "text_encoder", "te2": "text_encoder_2"}
_PEFT = re.compile(r"(?P<layer>.+?)\.lora_(?P<half>[AB])(?:\.[\w-]+)?\.weight")
_DIFFUSERS = re.compile(r"(?P<layer>.+?)\.lora(?:_linear_layer)?[._](?P<what>(?:down|up)\.weight)")
_PROCESSOR = re.compile(r"(?P<layer>.+?)(?:\.processor)?\.(?P<end>to_[qkv]|to_out)_lora\.(?P<what>(?:down|up)\.weight)")
_TEXT_ENDS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}  # diffusers before 0.18

Half = Literal["down", "up", "alpha"]
_HALVES: dict[str, Half] = {"down.weight": "down", "up.weight": "up", "alpha": "alpha"}


@dataclass
class Update:
    """What a file says of one layer."""

    part: str
    """ "unet", "text_encoder", or Stable Diffusion XL's "text_encoder_2"."""
    layer: str
    """The layer as the file names it."""
    down: Tensor | None = None
    up: Tensor | None = None
    alpha: float | None = None
    factors: dict[str, Tensor] = field(default_factory=dict)
    """What it is made of where it is no product of two matrices, by the names of `lycoris`."""


@dataclass(frozen=True, kw_only=True)
class LoraFile:
    """The updates of a LoRA file, and what of it is left alone."""

    updates: list[Update]
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Tensors that are no updates, and why."""


def read_updates(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], where: str, *, partial: bool = False
) -> LoraFile:
    """Return what the tensors of a LoRA file update, in any dialect; with `partial`, what is not known is skipped.

    Raises:
        MismatchError: They are of a relative of LoRA, of a motion module, or no LoRA at all, or an
            update lacks a half.
    """
    _require_lora(tensors, where)
    updates: dict[tuple[str, str], Update] = {}
    skipped = {}
    for name, value in tensors.items():
        said = _parse(name)
        if said is None:
            if "lora" in name and not partial:
                raise MismatchError(f"{where} has a tensor of a LoRA that is not known: {name}.")
            skipped[name] = "not known" if "lora" in name else "none of a LoRA's"
            continue
        part, layer, half = said
        update = updates.setdefault((part, layer), Update(part, layer))
        if half in _HALVES.values():
            setattr(update, half, float(value) if half == "alpha" else value)
        else:
            update.factors[half] = value
    halves = [update.layer for update in updates.values() if _is_half(update)]
    if halves:
        raise MismatchError(
            f"{where} is not whole: {len(halves)} of {len(updates)} updates lack a half, first {halves[0]}."
        )
    _add_alphas(list(updates.values()), metadata)
    return LoraFile(updates=list(updates.values()), skipped=skipped)


def _is_half(update: Update) -> bool:
    """Return whether an update is not whole; one in Tucker form has its two matrices among its factors."""
    if "lora_mid.weight" in update.factors:
        halves = {"lora_down.weight": update.down, "lora_up.weight": update.up}
        update.factors |= {name: half for name, half in halves.items() if half is not None}
    if update.factors:
        return lacks_a_part(update.factors)
    return update.down is None or update.up is None


def _require_lora(tensors: Mapping[str, Tensor], where: str) -> None:
    if any("motion_modules." in name for name in tensors):
        raise MismatchError(f"{where} updates a motion module; give it as one of motion_loras, not of loras.")
    for piece, kind in OTHER_KINDS.items():
        named = [name for name in tensors if re.search(piece, name)]
        if named:
            raise MismatchError(f"{where} is {kind} ({named[0]}), which this version does not read; it reads LoRAs.")
    if not any("lora" in name or _parse(name) for name in tensors):
        raise MismatchError(f"{where} is no LoRA; its {len(tensors)} tensors begin with {min(tensors)}.")


def _parse(name: str) -> tuple[str, str, str] | None:
    """Return the part and the layer that a tensor belongs to, and what of the update it is."""
    if kohya := _KOHYA.fullmatch(name):
        half = _half(kohya["what"])
        return (_KOHYA_PARTS[kohya["part"]], kohya["layer"], half) if half else None
    name = name.removeprefix("base_model.model.")
    part = next((part for part in ("text_encoder", "text_encoder_2") if name.startswith(f"{part}.")), "unet")
    name = name.removeprefix(f"{part}.")
    if name.endswith(".alpha"):
        return part, name.removesuffix(".alpha"), "alpha"
    if processor := _PROCESSOR.fullmatch(name):
        end = _TEXT_ENDS[processor["end"]] if part != "unet" else processor["end"].replace("to_out", "to_out.0")
        layer, half = f"{processor['layer']}.{end}", _half(processor["what"])
    elif peft := _PEFT.fullmatch(name):
        layer, half = peft["layer"], ("down" if peft["half"] == "A" else "up")
    elif diffusers := _DIFFUSERS.fullmatch(name):
        layer, half = diffusers["layer"], _half(diffusers["what"])
    else:
        return None
    return (part, layer, half) if half else None


def _half(what: str) -> str | None:
    """Return which half a tensor is, or which factor of an update that has others."""
    return _HALVES.get(what.removeprefix("lora_")) or (what if FACTORS.fullmatch(what) else None)


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
