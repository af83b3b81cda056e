"""What Tune-A-Video adds to an image model and tunes in it, as a module that can be put to work and taken out.

Wu et al. 2023, arXiv 2212.11565, §3.2: self-attention becomes sparse-causal, every transformer block gets an attention
over the frames behind its feed-forward layer, and only the queries and that attention are tuned.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from stillmotion.baselines.attending import attending, first_and_previous, transformer_blocks
from stillmotion.motion.frames import FrameCount
from stillmotion.motion.pooling import pool_over_frames

SpatialNorm = Literal["across_frames", "per_frame"]


class FrameAttention(nn.Module):
    """Attention of each place over the frames of a clip, added to what came in; zero at birth, so it changes nothing.

    As the reference has it: no positions, no mask, a LayerNorm before that stays as it is born. There the output's bias
    is left random, so that a new layer disturbs the picture; here it is zero as well.
    """

    def __init__(self, spatial: Attention) -> None:
        super().__init__()
        width, heads = int(spatial.query_dim), int(spatial.heads)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = Attention(width, heads=heads, dim_head=int(spatial.inner_dim) // heads, bias=spatial.use_bias)
        nn.init.zeros_(self.attention.to_out[0].weight)
        nn.init.zeros_(self.attention.to_out[0].bias)

    def forward(self, tokens: Float[Tensor, "images places channels"], num_frames: int) -> Tensor:
        """Return the tokens of images, the frames of a clip adjacent, after the frames have seen each other."""
        over_time = rearrange(tokens, "(b f) d c -> (b d) f c", f=num_frames)
        seen = self.attention(self.norm(over_time))
        return tokens + rearrange(seen, "(b d) f c -> (b f) d c", d=tokens.shape[1])


class OneClip(nn.Module):
    """The tuned part of a UNet: its own copies of the query projections, and attention over frames for every block.

    The UNet is read when this is made, and never written to: at work, its layers compute with these parameters in the
    place of theirs. It must be made, and be at work, with the same lessons in the image model.
    """

    def __init__(self, unet: UNet2DConditionModel, seed_of: Callable[[str], int]) -> None:
        """Copy the queries, in float32; `seed_of` gives the seed of a block's new attention by the block's path."""
        super().__init__()
        self._unet = [unet]  # in a list, so that it is no part of this module
        self.queries = nn.ParameterDict()
        self.attentions = nn.ModuleDict()
        for path, block in transformer_blocks(unet):
            name = path.replace(".", "/")
            for layer_name, layer in _query_layers(block):
                for kind, parameter in layer.named_parameters(recurse=False):
                    self.queries[f"{name}/{layer_name}/{kind}"] = nn.Parameter(parameter.detach().float().clone())
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_of(path))
                self.attentions[name] = FrameAttention(block.attn1)
        device = unet.device
        self.to(device)

    @contextmanager
    def at_work(self, num_frames: int, spatial_norm: SpatialNorm = "across_frames") -> Iterator[None]:
        """Make the UNet one of clips of `num_frames`; afterwards it is what it was, to the bit.

        `spatial_norm` says what the norms of its ResNets pool over: in the reference implementation the whole clip.
        """
        (unet,) = self._unet
        with ExitStack() as stack:
            for path, block in transformer_blocks(unet):
                name = path.replace(".", "/")
                for layer_name, layer in _query_layers(block):
                    for kind, own in list(layer.named_parameters(recurse=False)):
                        setattr(layer, kind, self.queries[f"{name}/{layer_name}/{kind}"])
                        stack.callback(setattr, layer, kind, own)
                handle = block.register_forward_hook(_hook(self.attentions[name], num_frames))
                stack.callback(handle.remove)
            stack.enter_context(attending(unet, first_and_previous(num_frames)))
            if spatial_norm == "across_frames":
                for handle in pool_over_frames(unet, FrameCount(num_frames)):
                    stack.callback(handle.remove)
            yield


def _hook(attention: nn.Module, num_frames: int) -> Any:
    def move(_: nn.Module, __: tuple[Any, ...], tokens: Tensor) -> Tensor:
        return attention(tokens, num_frames)

    return move


def _query_layers(block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the query projections of a transformer block, each out of what peft may have put around it."""
    for name in ("attn1", "attn2"):
        attention: Any = getattr(block, name, None)
        if attention is None:
            continue
        layer = attention.to_q
        while isinstance(inner := getattr(layer, "base_layer", None), nn.Module):
            layer = inner
        yield f"{name}/to_q", layer
