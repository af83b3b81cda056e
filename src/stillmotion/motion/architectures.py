"""What a motion module can be built of, as data. The layers themselves are in `module.py` and `convolution.py`."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

ArchitectureName = Literal["transformer", "temporal_conv"]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What stands at every site of a motion module between its two projections."""

    name: ArchitectureName
    blocks: str
    """The name of its blocks in a site, by which its tensors are known."""
    attends: bool
    """Whether frames see each other by attention. Its positional encoding then bounds a clip, and MotionLoRAs fit."""
    known_elsewhere: bool
    """Whether other programs have it, so that their dialects can hold it."""


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        architecture.name: architecture
        for architecture in (
            Architecture(name="transformer", blocks="transformer_blocks", attends=True, known_elsewhere=True),
            Architecture(name="temporal_conv", blocks="convolution_blocks", attends=False, known_elsewhere=False),
        )
    }
)
"""The motion module of the paper (§4.2), and the convolutional one that its ablation sets beside it (§5.3)."""
