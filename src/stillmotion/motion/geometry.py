"""The sizes of a motion module, and its sites in a UNet."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stillmotion.errors import MismatchError
from stillmotion.motion.architectures import ARCHITECTURES, ArchitectureName


@dataclass(frozen=True, kw_only=True)
class MotionGeometry:
    """The sizes of a motion module: what its tensors' shapes tell, and the number of heads, which they do not."""

    block_out_channels: tuple[int, ...]
    """Channels of the UNet's levels, from the finest."""
    layers_per_block: int = 2
    has_mid_block: bool = False
    max_frames: int = 32
    """Rows of the positional encoding, where the architecture has one."""
    num_attention_heads: int = 8
    attentions_per_block: int = 2
    """Temporal self-attentions in a transformer block; SparseCtrl has one."""
    has_up_blocks: bool = True
    """SparseCtrl's encoder has none."""
    norm_num_groups: int = 32
    architecture: ArchitectureName = "transformer"
    """One of `ARCHITECTURES`."""

    def sites(self) -> dict[str, int]:
        """Return the channels of every site by its name, in the order of a UNet's forward pass."""
        widths, layers = self.block_out_channels, self.layers_per_block
        found = {f"down_blocks.{i}.motion_modules.{j}": c for i, c in enumerate(widths) for j in range(layers)}
        if self.has_mid_block:
            found["mid_block.motion_modules.0"] = widths[-1]
        if self.has_up_blocks:
            upward = enumerate(reversed(widths))
            found |= {f"up_blocks.{i}.motion_modules.{j}": c for i, c in upward for j in range(layers + 1)}
        return found

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]], **known: Any) -> "MotionGeometry":
        """Return the geometry of tensors named as this module names them; `known` fields are taken as given.

        Raises `MismatchError` where levels are missing.
        """
        widths: dict[int, int] = {}
        layers = 0
        for name, shape in shapes.items():
            if found := re.fullmatch(r"down_blocks\.(\d+)\.motion_modules\.(\d+)\.proj_in\.weight", name):
                widths[int(found[1])], layers = shape[0], max(layers, int(found[2]) + 1)
        if sorted(widths) != list(range(len(widths))) or not widths:
            raise MismatchError(f"Motion modules sit at levels {sorted(widths)}; expected every level from 0 on.")
        architecture = architecture_of(shapes)
        encodings = [shape[1] for name, shape in shapes.items() if name.endswith("pos_embed.pe")]
        read: dict[str, Any] = {
            "block_out_channels": tuple(widths[level] for level in sorted(widths)),
            "layers_per_block": layers,
            "has_mid_block": any(name.startswith("mid_block.") for name in shapes),
            "has_up_blocks": any(name.startswith("up_blocks.") for name in shapes),
            "architecture": architecture,
        }
        if ARCHITECTURES[architecture].attends:
            read["attentions_per_block"] = 2 if any(".attn2." in name for name in shapes) else 1
        if encodings:
            read["max_frames"] = min(encodings)
        return cls(**(read | known))


def architecture_of(names: Iterable[str]) -> ArchitectureName:
    """Return the architecture that tensors are named after; the transformer where no name tells."""
    parts = {part for name in names for part in name.split(".")}
    return next((a.name for a in ARCHITECTURES.values() if a.blocks in parts), "transformer")
