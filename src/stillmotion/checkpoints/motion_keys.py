"""The names of a motion module's tensors in each dialect.

Inside Stillmotion they are those of diffusers' MotionAdapter. The reference implementation, and ComfyUI after it, say

    diffusers, after the site                reference, after the site
    .norm.weight                             .temporal_transformer.norm.weight
    .transformer_blocks.0.attn1.to_q.weight  .temporal_transformer.transformer_blocks.0.attention_blocks.0.to_q.weight
    .transformer_blocks.0.norm1.weight       .temporal_transformer.transformer_blocks.0.norms.0.weight
    .transformer_blocks.0.norm3.weight       .temporal_transformer.transformer_blocks.0.ff_norm.weight
    .transformer_blocks.0.pos_embed.pe       .temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe
                                             .temporal_transformer.transformer_blocks.0.attention_blocks.1.pos_encoder.pe

where a site is `down_blocks.0.motion_modules.1`, `mid_block.motion_modules.0` or `up_blocks.3.motion_modules.2`. The
reference stores the positional encoding once per attention; the copies are equal, and one is kept. Hotshot-XL has the
reference's names, but its sites are `down_blocks.0.temporal_attentions.1`, without `.temporal_transformer`, and its
positions end with `.pos_encoder.positional_encoding`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from stillmotion.motion.reference_names import POSITIONS, from_reference

MotionDialect = Literal["original", "diffusers", "hotshot"]
"""Whose names the tensors bear."""

SITE = r"(?:(?:down|up)_blocks\.\d+|mid_block)\.motion_modules\.\d+"
"""The place of one motion module in a UNet."""

POSITION_ENDINGS = (POSITIONS, ".pos_encoder.pe", ".pos_encoder.positional_encoding")
"""Ends of the names of positional encodings in every dialect that is recognised."""

_HOTSHOT_SITE = re.compile(r"(?<=_blocks\.)(\d+)\.temporal_attentions\.(?=\d)")
_MOTION_KEY = re.compile(rf"^(?P<prefix>.*?)(?P<site>{SITE})\.(?P<tail>.+)$")
_ATTENTION = re.compile(r"\.attn(\d+)\.to_q\.weight$")


@dataclass(frozen=True, kw_only=True)
class MotionTensors:
    """The motion module found in a file, under diffusers' names, and what else the file holds."""

    tensors: Mapping[str, Tensor]
    """The module's tensors."""

    dialect: MotionDialect
    """Whose names they bore."""

    others: tuple[str, ...]
    """Names of the tensors that belong to no motion module, such as those of a whole UNet."""

    conflicts: tuple[str, ...]
    """Names that stand twice with different values, such as the positional encodings of two attentions of one block."""

    @property
    def inside_unet(self) -> bool:
        """Whether the rest of the file is the UNet around the module, as trainers save it."""
        return any(".resnets." in name for name in self.others)

    @property
    def has_positions(self) -> bool:
        """Whether the file stores positional encodings."""
        return any(name.endswith(POSITIONS) for name in self.tensors)


def find_motion(tensors: Mapping[str, Tensor]) -> MotionTensors:
    """Return the motion module among `tensors`, whatever prefix (`module.`, `unet.`) its names bear."""
    found: dict[str, Tensor] = {}
    others: list[str] = []
    conflicts: list[str] = []
    dialect: MotionDialect = "diffusers"
    for name, tensor in tensors.items():
        known, hotshot = _HOTSHOT_SITE.subn(r"\1.motion_modules.", name)
        match = _MOTION_KEY.match(known)
        if match is None:
            others.append(name)
            continue
        if hotshot:
            dialect = "hotshot"
        elif match["tail"].startswith("temporal_transformer."):
            dialect = "original"
        key = f"{match['site']}.{from_reference(match['tail'])}"
        if key in found and not _equal(found[key], tensor):
            conflicts.append(name)
        found.setdefault(key, tensor)
    return MotionTensors(tensors=found, dialect=dialect, others=tuple(others), conflicts=tuple(conflicts))


def to_original(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a motion module's tensors under the reference implementation's names.

    A positional encoding comes back once per attention of its block; the copies share memory.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = _MOTION_KEY.match(name)
        if match is None:
            raise ValueError(f"{name} is not the name of a motion module's tensor.")
        site, tail = f"{match['site']}.temporal_transformer", match["tail"]
        if not name.endswith(POSITIONS):
            result[f"{site}.{_to_reference(tail)}"] = tensor
            continue
        block = name.removesuffix(POSITIONS)
        for attention in _attentions(block, tensors):
            reference_block = tail.removesuffix(POSITIONS)
            result[f"{site}.{reference_block}.attention_blocks.{attention}.pos_encoder.pe"] = tensor
    return result


def _attentions(block: str, tensors: Mapping[str, Tensor]) -> list[int]:
    """Return the indices that the reference gives to the attentions of one transformer block."""
    matches = (_ATTENTION.search(name) for name in tensors if name.startswith(f"{block}."))
    return sorted(int(match[1]) - 1 for match in matches if match)


def _to_reference(tail: str) -> str:
    tail = tail.replace(".norm3.", ".ff_norm.")
    tail = re.sub(r"\.attn(\d+)\.", lambda match: f".attention_blocks.{int(match[1]) - 1}.", tail)
    return re.sub(r"\.norm([12])\.", lambda match: f".norms.{int(match[1]) - 1}.", tail)


def _equal(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors are the same, as far as they are known: on the `meta` device, in shape and dtype."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    return first.is_meta or second.is_meta or torch.equal(first, second)
