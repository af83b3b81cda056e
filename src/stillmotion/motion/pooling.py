"""The image model's own norms over all frames of a clip: what v1 modules were trained with, and Tune-A-Video.

Both grew out of a UNet whose ResNets see clips, so their GroupNorms take mean and spread over frames, height and width.
"""

from collections.abc import Iterator
from typing import Any

from diffusers import UNet2DConditionModel
from einops import rearrange
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from stillmotion.motion.frames import FrameCount


def pool_over_frames(unet: UNet2DConditionModel, frames: FrameCount) -> list[RemovableHandle]:
    """Let both norms of every ResNet, and the last one, pool over the frames of each clip, until the handles are removed."""
    handles: list[RemovableHandle] = []
    for norm in _spatial_norms(unet):
        handles.append(norm.register_forward_pre_hook(_pool_hook(frames)))
        handles.append(norm.register_forward_hook(_unpool_hook(frames)))
    return handles


def _spatial_norms(unet: UNet2DConditionModel) -> Iterator[nn.GroupNorm]:
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        for resnet in block.resnets:
            yield resnet.norm1
            yield resnet.norm2
    yield unet.conv_norm_out


def _pool_hook(frames: FrameCount) -> Any:
    def pool(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if frames.pick(frames.strength) == 0:
            return inputs  # without motion it is the image model, which pools nothing
        return (rearrange(inputs[0], "(b f) c h w -> b c (f h) w", f=frames.num_frames),)

    return pool


def _unpool_hook(frames: FrameCount) -> Any:
    def unpool(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
        if frames.pick(frames.strength) == 0:
            return output
        return rearrange(output, "b c (f h) w -> (b f) c h w", f=frames.num_frames)

    return unpool
