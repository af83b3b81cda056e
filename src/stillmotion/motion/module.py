"""The motion module: a temporal transformer per site of an image UNet (paper §4.2). It knows nothing of UNets.

Tokens stay where they are: (batch, frames, height·width, channels) from entrance to exit; only the small attention over
frames looks along another axis. Parameters are named as in diffusers' `MotionAdapter`. In the transformer's place may
stand the convolutions of `convolution.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stillmotion.errors import MismatchError
from stillmotion.motion.architectures import ARCHITECTURES, Architecture
from stillmotion.motion.convolution import TemporalConvolution
from stillmotion.motion.frames import FrameCount
from stillmotion.motion.geometry import MotionGeometry
from stillmotion.motion.site import MotionSite, Tokens
from stillmotion.motion.variants import VARIANTS, NormStatistics, Variant


def sinusoidal_positions(length: int, channels: int) -> Float[Tensor, "1 length channels"]:
    """Return the positional encoding of the paper: sines on even channels, cosines on odd ones, base 10000."""
    position = torch.arange(length).unsqueeze(1)
    rate = torch.exp(torch.arange(0, channels, 2) * (-torch.log(torch.tensor(10000.0)) / channels))
    table = torch.zeros(1, length, channels)
    table[0, :, 0::2] = torch.sin(position * rate)
    table[0, :, 1::2] = torch.cos(position * rate)
    return table


class PositionalEncoding(nn.Module):
    """A fixed table of positions, kept in the state dict, as files keep it."""

    pe: Tensor

    def __init__(self, length: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("pe", sinusoidal_positions(length, channels))


class TemporalAttention(nn.Module):
    """Self-attention over the frames of each place."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, tokens: Tokens) -> Tokens:
        """Return what each token gathers from the same place in the other frames."""
        _, frames, places, channels = tokens.shape
        q, k, v = (self._by_place(to(tokens)) for to in (self.to_q, self.to_k, self.to_v))
        # Keys by queries, and a softmax over rows: with so few frames in a row, PyTorch's fused attention, and its
        # softmax over columns, spend more time on set-up than on sums (docs/decisions/0011).
        scores = torch.baddbmm(k.new_empty(1), k, q.transpose(1, 2), beta=0, alpha=q.shape[-1] ** -0.5)
        gathered = torch.bmm(scores.softmax(1).transpose(1, 2), v)
        by_frame = gathered.view(-1, places * self.num_heads, frames, channels // self.num_heads).transpose(1, 2)
        return self.to_out[0](by_frame.reshape(tokens.shape))

    def _by_place(self, tokens: Tokens) -> Float[Tensor, "batch_places_heads frames head"]:
        batch, frames, places, channels = tokens.shape
        head = channels // self.num_heads
        by_head = tokens.view(batch, frames, places * self.num_heads, head)
        return by_head.transpose(1, 2).reshape(-1, frames, head)


class GatedLinear(nn.Module):
    """The first half of the feed-forward: values times the exact GELU of their gates."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * inner)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the gated values."""
        values, gates = self.proj(tokens).chunk(2, dim=-1)
        return values * F.gelu(gates)


class FeedForward(nn.Module):
    """GEGLU, four times as wide inside (Shazeer 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = 4 * channels
        self.net = nn.ModuleList([GatedLinear(channels, inner), nn.Dropout(0.0), nn.Linear(inner, channels)])

    def forward(self, tokens: Tokens) -> Tokens:
        """Return the transformed tokens."""
        return self.net[2](self.net[0](tokens))


class TemporalBlock(nn.Module):
    """Attention over frames, once or twice, then the feed-forward, each on normalised tokens and added to them."""

    def __init__(self, channels: int, geometry: MotionGeometry) -> None:
        super().__init__()
        self.num_attentions = geometry.attentions_per_block
        self.pos_embed = PositionalEncoding(geometry.max_frames, channels)
        for index in range(1, self.num_attentions + 1):
            self.add_module(f"norm{index}", nn.LayerNorm(channels))
            self.add_module(f"attn{index}", TemporalAttention(channels, geometry.num_attention_heads))
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)
        self.frames: FrameCount | None = None
        """Where it is plugged in: the frames at hand, and the windows through which it attends to them."""

    def forward(self, tokens: Tokens) -> Tokens:
        """Return the tokens after every sub-layer."""
        tokens = self._by_window(tokens) if self.frames and self.frames.windows else self._attended(tokens)
        return tokens + self.ff(self.norm3(tokens))

    def _by_window(self, tokens: Tokens) -> Tokens:
        """Return the tokens after attention within each window, averaged where windows overlap (FreeNoise, §3.3).

        Each window has positions from 0, so there may be more frames than positions. What is averaged is what attention
        adds: a block that adds nothing returns exactly what came in, the last frames included.
        """
        assert self.frames is not None
        added = torch.zeros_like(tokens, dtype=torch.float32)
        for places, weights in self.frames.parts(added):
            seen = tokens[:, places]
            added.index_add_(1, places, (self._attended(seen) - seen).float() * weights)
        return tokens + added.to(tokens.dtype)

    def _attended(self, tokens: Tokens) -> Tokens:
        """Return the tokens after the attentions; positions enter each, its values too, never the residual."""
        positions = self.pos_embed.pe[:, : tokens.shape[1], None].to(tokens.dtype)
        for index in range(1, self.num_attentions + 1):
            norm, attention = getattr(self, f"norm{index}"), getattr(self, f"attn{index}")
            tokens = tokens + attention(norm(tokens) + positions)
        return tokens


class TemporalTransformer(MotionSite):
    """One site of the architecture "transformer", the paper's: one transformer block, with attention over frames."""

    architecture = ARCHITECTURES["transformer"]

    @staticmethod
    def new_blocks(channels: int, geometry: MotionGeometry) -> list[nn.Module]:
        """Return the transformer block."""
        return [TemporalBlock(channels, geometry)]


SITES: Mapping[str, type[MotionSite]] = {
    site.architecture.name: site for site in (TemporalTransformer, TemporalConvolution)
}
"""What stands at every site, by architecture."""


class SiteBlock(nn.Module):
    """The motion modules of one block of the UNet."""

    def __init__(self, channels: Sequence[int], geometry: MotionGeometry, motion_norm: NormStatistics) -> None:
        super().__init__()
        site = SITES[geometry.architecture]
        self.motion_modules = nn.ModuleList([site(c, geometry, motion_norm) for c in channels])


class MotionModule(nn.Module):
    """Everything that is plugged into a UNet to make it move."""

    def __init__(
        self, geometry: MotionGeometry, variant: Variant, *, motion_norm: NormStatistics | None = None
    ) -> None:
        super().__init__()
        self.geometry = geometry
        self.variant = variant if motion_norm is None else replace(variant, motion_norm=motion_norm)
        norm, layers, widths = self.variant.motion_norm, geometry.layers_per_block, geometry.block_out_channels
        self.down_blocks = nn.ModuleList([SiteBlock([c] * layers, geometry, norm) for c in widths])
        self.mid_block = SiteBlock([widths[-1]], geometry, norm) if geometry.has_mid_block else None
        upward = reversed(widths) if geometry.has_up_blocks else ()
        self.up_blocks = nn.ModuleList([SiteBlock([c] * (layers + 1), geometry, norm) for c in upward])

    @classmethod
    def from_variant(
        cls,
        name: str,
        *,
        block_out_channels: Sequence[int],
        architecture: str = "transformer",
        motion_norm: NormStatistics | None = None,
        **geometry: Any,
    ) -> "MotionModule":
        """Return an untrained module of a named variant, which changes nothing until it is trained.

        `architecture` is one of `ARCHITECTURES`; `geometry` gives further fields of `MotionGeometry`. Raises
        `MismatchError` for an unknown name of either.
        """
        if name not in VARIANTS:
            raise MismatchError(f"Motion module variant {name!r} is unknown; expected one of {', '.join(VARIANTS)}.")
        if architecture not in ARCHITECTURES:
            raise MismatchError(
                f"Motion module architecture {architecture!r} is unknown; expected one of {', '.join(ARCHITECTURES)}."
            )
        variant = VARIANTS[name]
        known = {"has_mid_block": variant.has_mid_block, "max_frames": variant.max_frames} | geometry
        known |= {"architecture": architecture}
        return cls(
            MotionGeometry(block_out_channels=tuple(block_out_channels), **known), variant, motion_norm=motion_norm
        )

    def sites(self) -> dict[str, MotionSite]:
        """Return what stands at every site by name, in the order of a UNet's forward pass."""
        found = {name: self.get_submodule(name) for name in self.geometry.sites()}
        return {name: site for name, site in found.items() if isinstance(site, MotionSite)}

    @property
    def architecture(self) -> Architecture:
        """Return what the module is built of."""
        return ARCHITECTURES[self.geometry.architecture]

    @property
    def max_frames(self) -> int | None:
        """Return how many positions the module has: no clip, or window of one, can be longer. None bounds nothing."""
        return self.geometry.max_frames if self.architecture.attends else None

    def require_attention(self) -> None:
        """Raise `MismatchError` unless the module has what a MotionLoRA updates: attention over frames (paper §4.3)."""
        if not self.architecture.attends:
            raise MismatchError(
                f"A MotionLoRA updates the attention over frames, and this {self.architecture.name} module has none; "
                f"use it with a module of the architecture transformer, or leave it out."
            )
