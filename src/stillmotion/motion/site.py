"""What every site of a motion module does, whatever its architecture: features in, features out."""

from abc import abstractmethod
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stillmotion.motion.architectures import Architecture
from stillmotion.motion.geometry import MotionGeometry
from stillmotion.motion.variants import NormStatistics

Tokens = Float[Tensor, "batch frames places channels"]
Features = Float[Tensor, "images channels height width"]


class MotionSite(nn.Module):
    """One site: normalise, project, let frames see each other, project back, add. Zero at birth, so it changes nothing.

    Tokens stay where they are: (batch, frames, height·width, channels) from entrance to exit.
    """

    architecture: ClassVar[Architecture]

    def __init__(self, channels: int, geometry: MotionGeometry, motion_norm: NormStatistics) -> None:
        super().__init__()
        self.motion_norm = motion_norm
        # The order is that of the released files; random values and the optimiser's state go by it, too.
        self.norm = nn.GroupNorm(geometry.norm_num_groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.add_module(self.architecture.blocks, nn.ModuleList(self.new_blocks(channels, geometry)))
        self.proj_out = nn.Linear(channels, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)
        self.gradient_checkpointing = False

    @staticmethod
    @abstractmethod
    def new_blocks(channels: int, geometry: MotionGeometry) -> list[nn.Module]:
        """Return the layers that take tokens, let frames see each other, and return tokens of the same shape."""

    def forward(self, features: Features, num_frames: int) -> Features:
        """Return the features of the frames after they have seen each other; the frames of a clip are adjacent."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(self._forward, features, num_frames, use_reentrant=False)
        return self._forward(features, num_frames)

    def _forward(self, features: Features, num_frames: int) -> Features:
        height = features.shape[2]
        if self.motion_norm == "across_frames":
            clips = rearrange(features, "(b f) c h w -> b c (f h) w", f=num_frames)
            normed = rearrange(self.norm(clips), "b c (f h) w -> b f (h w) c", f=num_frames)
        else:
            normed = rearrange(self.norm(features), "(b f) c h w -> b f (h w) c", f=num_frames)
        tokens = self.proj_in(normed)
        for block in getattr(self, self.architecture.blocks):
            tokens = block(tokens)
        moved = rearrange(self.proj_out(tokens), "b f (h w) c -> (b f) c h w", h=height)
        return features + moved
