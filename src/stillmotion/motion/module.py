"""The motion module: a temporal transformer per site of an image UNet (paper §4.2). It knows nothing of UNets.

Tokens stay where they are: (batch, frames, height·width, channels) from entrance to exit; only the small attention over
frames looks along another axis. Parameters are named as in diffusers' `MotionAdapter`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stillmotion.errors import MismatchError
from stillmotion.motion.variants import VARIANTS, NormStatistics, Variant

Tokens = Float[Tensor, "batch frames places channels"]
Features = Float[Tensor, "images channels height width"]


def sinusoidal_positions(length: int, channels: int) -> Float[Tensor, "1 length channels"]:
    """Return the positional encoding of the paper: sines on even channels, cosines on odd ones, base 10000."""
    position = torch.arange(length).unsqueeze(1)
    rate = torch.exp(torch.arange(0, channels, 2) * (-torch.log(torch.tensor(10000.0)) / channels))
    table = torch.zeros(1, length, channels)
    table[0, :, 0::2] = torch.sin(position * rate)
    table[0, :, 1::2] = torch.cos(position * rate)
    return table


@dataclass(frozen=True, kw_only=True)
class MotionGeometry:
    """The sizes of a motion module: what its tensors' shapes tell, and the number of heads, which they do not."""

    block_out_channels: tuple[int, ...]
    """Channels of the UNet's levels, from the finest."""
    layers_per_block: int = 2
    has_mid_block: bool = False
    max_frames: int = 32
    """Rows of the positional encoding."""
    num_attention_heads: int = 8
    attentions_per_block: int = 2
    """Temporal self-attentions in a transformer block; SparseCtrl has one."""
    has_up_blocks: bool = True
    """SparseCtrl's encoder has none."""
    norm_num_groups: int = 32

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
        """Return the geometry of tensors named as this module names them; `known` fields are taken as given."""
        widths: dict[int, int] = {}
        layers = 0
        for name, shape in shapes.items():
            if found := re.fullmatch(r"down_blocks\.(\d+)\.motion_modules\.(\d+)\.proj_in\.weight", name):
                widths[int(found[1])], layers = shape[0], max(layers, int(found[2]) + 1)
        if sorted(widths) != list(range(len(widths))) or not widths:
            raise MismatchError(f"Motion modules sit at levels {sorted(widths)}; expected every level from 0 on.")
        encodings = [shape[1] for name, shape in shapes.items() if name.endswith("pos_embed.pe")]
        read: dict[str, Any] = {
            "block_out_channels": tuple(widths[level] for level in sorted(widths)),
            "layers_per_block": layers,
            "has_mid_block": any(name.startswith("mid_block.") for name in shapes),
            "has_up_blocks": any(name.startswith("up_blocks.") for name in shapes),
            "attentions_per_block": 2 if any(".attn2." in name for name in shapes) else 1,
        }
        if encodings:
            read["max_frames"] = min(encodings)
        return cls(**(read | known))


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

    def forward(self, tokens: Tokens) -> Tokens:
        """Return the tokens after every sub-layer; positions enter each attention, its values too, never the residual."""
        positions = self.pos_embed.pe[:, : tokens.shape[1], None].to(tokens.dtype)
        for index in range(1, self.num_attentions + 1):
            norm, attention = getattr(self, f"norm{index}"), getattr(self, f"attn{index}")
            tokens = tokens + attention(norm(tokens) + positions)
        return tokens + self.ff(self.norm3(tokens))


class TemporalTransformer(nn.Module):
    """One site: normalise, project, attend over frames, project back, add. Zero at birth, so that it changes nothing."""

    def __init__(self, channels: int, geometry: MotionGeometry, motion_norm: NormStatistics) -> None:
        super().__init__()
        self.motion_norm = motion_norm
        self.norm = nn.GroupNorm(geometry.norm_num_groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(channels, geometry)])
        self.proj_out = nn.Linear(channels, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)
        self.gradient_checkpointing = False

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
        for block in self.transformer_blocks:
            tokens = block(tokens)
        moved = rearrange(self.proj_out(tokens), "b f (h w) c -> (b f) c h w", h=height)
        return features + moved


class SiteBlock(nn.Module):
    """The motion modules of one block of the UNet."""

    def __init__(self, channels: Sequence[int], geometry: MotionGeometry, motion_norm: NormStatistics) -> None:
        super().__init__()
        self.motion_modules = nn.ModuleList([TemporalTransformer(c, geometry, motion_norm) for c in channels])


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
        cls, name: str, *, block_out_channels: Sequence[int], motion_norm: NormStatistics | None = None, **geometry: Any
    ) -> "MotionModule":
        """Return an untrained module of a named variant, which changes nothing until it is trained.

        `geometry` gives further fields of `MotionGeometry`. Raises `MismatchError` for an unknown name.
        """
        if name not in VARIANTS:
            raise MismatchError(f"Motion module variant {name!r} is unknown; expected one of {', '.join(VARIANTS)}.")
        variant = VARIANTS[name]
        known = {"has_mid_block": variant.has_mid_block, "max_frames": variant.max_frames} | geometry
        return cls(
            MotionGeometry(block_out_channels=tuple(block_out_channels), **known), variant, motion_norm=motion_norm
        )

    def sites(self) -> dict[str, TemporalTransformer]:
        """Return the temporal transformers by name, in the order of a UNet's forward pass."""
        found = {name: self.get_submodule(name) for name in self.geometry.sites()}
        return {name: site for name, site in found.items() if isinstance(site, TemporalTransformer)}

    @property
    def max_frames(self) -> int:
        """Return how many positions the module has: no clip, or window of one, can be longer."""
        return self.geometry.max_frames
