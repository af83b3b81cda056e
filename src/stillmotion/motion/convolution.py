"""The convolutional motion module of the paper's ablation (arXiv 2307.04725, §5.3, "Motion module design").

The paper says that the temporal attention is replaced by 1-D temporal convolution and that both designs have about as
many parameters. It gives no sizes. Here they follow from the count, c being the channels of a site:

    temporal transformer    projections 2c², two attentions 8c², feed-forward 12c²             22c² + 21c
    temporal convolution    projections 2c², four convolutions of c to c over 5 frames 20c²    22c² + 16c

At Stable Diffusion 1.5's widths that is 417,049,600 against 417,137,600 parameters for v1 and v3, and 453,114,880 against
453,209,280 for v2: 0.02 % fewer.
"""

import torch.nn.functional as F
from torch import nn

from stillmotion.motion.architectures import ARCHITECTURES
from stillmotion.motion.geometry import MotionGeometry
from stillmotion.motion.site import MotionSite, Tokens

KERNEL_FRAMES = 5
"""Frames that one convolution sees: a frame, and two to each side."""

NUM_BLOCKS = 2
"""Blocks of a site: as many as the transformer has attentions. Together they reach eight frames to each side."""


class FrameConvolution(nn.Conv2d):
    """A convolution over the frames of each place; beyond the ends of a clip there are zeros."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, (KERNEL_FRAMES, 1), padding=(KERNEL_FRAMES // 2, 0))

    def forward(self, tokens: Tokens) -> Tokens:
        """Return tokens of the same shape, for any number of frames."""
        # As a picture of (frames, places) whose channels lie innermost, tokens are what PyTorch calls channels_last:
        # nothing is copied, where `nn.Conv1d` would need every place's frames side by side.
        return super().forward(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ConvolutionBlock(nn.Module):
    """Two convolutions over frames, each on normalised tokens after a SiLU, added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Statistics of one token alone: frames and places meet nowhere but where it is meant.
        self.norm1 = nn.LayerNorm(channels)
        self.conv1 = FrameConvolution(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.conv2 = FrameConvolution(channels)

    def forward(self, tokens: Tokens) -> Tokens:
        """Return the tokens after both convolutions."""
        hidden = self.conv1(F.silu(self.norm1(tokens)))
        return tokens + self.conv2(F.silu(self.norm2(hidden)))


class TemporalConvolution(MotionSite):
    """One site of the architecture "temporal_conv": no attention, no positions, clips of any length."""

    architecture = ARCHITECTURES["temporal_conv"]

    @staticmethod
    def new_blocks(channels: int, geometry: MotionGeometry) -> list[nn.Module]:  # noqa: ARG004
        """Return the blocks of convolutions."""
        return [ConvolutionBlock(channels) for _ in range(NUM_BLOCKS)]
