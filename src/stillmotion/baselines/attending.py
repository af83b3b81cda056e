"""Self-attention that looks at other frames: all that Text2Video-Zero changes in a UNet, and half of Tune-A-Video.

The projections stay the image model's own. Only whose tokens keys and values are made of changes, so a hook that hands
an attention layer other tokens is enough, whatever processor computes it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from torch import nn

from stillmotion.errors import MismatchError

References = Sequence[Sequence[int]]
"""For every frame the frames whose tokens it attends to, as many for each."""


def first_frame(num_frames: int) -> References:
    """Return Text2Video-Zero's cross-frame attention: every frame attends to the first one alone (its Eq. 8)."""
    return [[0]] * num_frames


def first_and_previous(num_frames: int) -> References:
    """Return Tune-A-Video's sparse-causal attention: to the first frame and the one before (its Eq. 5).

    The first frame has none before it and attends to itself twice, as in the reference implementation.
    """
    return [[0, max(frame - 1, 0)] for frame in range(num_frames)]


def transformer_blocks(unet: UNet2DConditionModel) -> Iterator[tuple[str, BasicTransformerBlock]]:
    """Yield every transformer block with its path, in the order of the UNet."""
    for name, module in unet.named_modules():
        if isinstance(module, BasicTransformerBlock):
            yield name, module


@contextmanager
def attending(unet: UNet2DConditionModel, references: References) -> Iterator[None]:
    """Let the self-attention of each frame attend to its references; afterwards the UNet is what it was.

    The UNet then takes images whose frames are adjacent, clips of `len(references)` frames each; it raises
    `MismatchError` for a batch that does not divide into such clips.
    """
    index = torch.tensor([list(seen) for seen in references])  # (frames, references)

    def redirect(_: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any] | None:
        tokens = inputs[0]
        if options.get("encoder_hidden_states") is not None:
            return None  # a block that attends to the text twice
        if len(tokens) % len(index):
            raise MismatchError(f"{len(tokens)} images do not divide into clips of {len(index)} frames.")
        clips = tokens.unflatten(0, (-1, len(index)))
        seen = clips[:, index.to(tokens.device)]  # (clips, frames, references, places, channels)
        return inputs, {**options, "encoder_hidden_states": seen.flatten(2, 3).flatten(0, 1)}

    handles = [
        block.attn1.register_forward_pre_hook(redirect, with_kwargs=True) for _, block in transformer_blocks(unet)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
