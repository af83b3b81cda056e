"""Files as other programs write them, tiny: names spelt out here as they stand in released files, not by our key tables."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

Tensors = dict[str, Tensor]

WIDTHS = (32, 64)
LAYERS = ("to_q", "to_k", "to_v", "to_out")


def motion_sites(widths: tuple[int, ...] = WIDTHS, layers: int = 1, *, mid: bool = False) -> Iterator[tuple[str, int]]:
    """Yield the places of motion modules in a UNet, with their channels."""
    for level, width in enumerate(widths):
        yield from ((f"down_blocks.{level}.motion_modules.{index}", width) for index in range(layers))
    if mid:
        yield "mid_block.motion_modules.0", widths[-1]
    for level, width in enumerate(reversed(widths)):
        yield from ((f"up_blocks.{level}.motion_modules.{index}", width) for index in range(layers + 1))


def positions(length: int, channels: int) -> Tensor:
    """Return the reference's positional encoding."""
    table = torch.zeros(1, length, channels)
    rate = torch.exp(torch.arange(0, channels, 2) * (-torch.log(torch.tensor(10000.0)) / channels))
    table[0, :, 0::2] = torch.sin(torch.arange(length).unsqueeze(1) * rate)
    table[0, :, 1::2] = torch.cos(torch.arange(length).unsqueeze(1) * rate)
    return table


def reference_motion(
    widths: tuple[int, ...] = WIDTHS,
    layers: int = 1,
    *,
    mid: bool = False,
    length: int | None = 32,
    dtype: torch.dtype = torch.float32,
) -> Tensors:
    """Return a motion module as the reference implementation saves it; without positions where `length` is None."""
    draw = torch.Generator().manual_seed(sum(widths) + layers)
    result: Tensors = {}
    for site, c in motion_sites(widths, layers, mid=mid):
        block = f"{site}.temporal_transformer.transformer_blocks.0"
        shapes: dict[str, tuple[int, ...]] = {
            f"{site}.temporal_transformer.norm.weight": (c,),
            f"{site}.temporal_transformer.norm.bias": (c,),
            f"{site}.temporal_transformer.proj_in.weight": (c, c),
            f"{site}.temporal_transformer.proj_in.bias": (c,),
            f"{block}.ff.net.0.proj.weight": (8 * c, c),
            f"{block}.ff.net.0.proj.bias": (8 * c,),
            f"{block}.ff.net.2.weight": (c, 4 * c),
            f"{block}.ff.net.2.bias": (c,),
            f"{block}.ff_norm.weight": (c,),
            f"{block}.ff_norm.bias": (c,),
            f"{site}.temporal_transformer.proj_out.weight": (c, c),
            f"{site}.temporal_transformer.proj_out.bias": (c,),
        }
        for index in (0, 1):
            attention = f"{block}.attention_blocks.{index}"
            shapes |= {f"{attention}.{name}.weight": (c, c) for name in ("to_q", "to_k", "to_v", "to_out.0")}
            shapes |= {f"{attention}.to_out.0.bias": (c,)}
            shapes |= {f"{block}.norms.{index}.weight": (c,), f"{block}.norms.{index}.bias": (c,)}
            if length:
                result[f"{attention}.pos_encoder.pe"] = positions(length, c).to(dtype)
        result |= {name: (torch.randn(shape, generator=draw) * 0.1).to(dtype) for name, shape in shapes.items()}
    return result


def pairs(targets: dict[str, int], rank: int, dtype: torch.dtype = torch.float32) -> dict[str, tuple[Tensor, Tensor]]:
    """Return a random pair (down, up) for every target, given with its channels."""
    draw = torch.Generator().manual_seed(rank)
    return {
        target: (torch.randn(rank, c, generator=draw).to(dtype), torch.randn(c, rank, generator=draw).to(dtype))
        for target, c in targets.items()
    }


def reference_lora(
    *, mid: bool = False, rank: int = 4, widths: tuple[int, ...] = WIDTHS, dtype: torch.dtype = torch.float32
) -> Tensors:
    """Return a MotionLoRA as the reference names it: both attentions, all four layers."""
    stems = {
        f"{site}.temporal_transformer.transformer_blocks.0.attention_blocks.{index}.processor.{layer}_lora": c
        for site, c in motion_sites(widths, mid=mid)
        for index in (0, 1)
        for layer in LAYERS
    }
    return _halves(pairs(stems, rank, dtype))


def reference_adapter(rank: int = 4, dtype: torch.dtype = torch.float32) -> Tensors:
    """Return a domain adapter as the reference names it: the attentions of a UNet's spatial transformers."""
    places = [("down_blocks.0.attentions.0", 32), ("mid_block.attentions.0", 64), ("up_blocks.1.attentions.1", 32)]
    stems = {
        f"{place}.transformer_blocks.0.{attention}.processor.{layer}_lora": c
        for place, c in places
        for attention in ("attn1", "attn2")
        for layer in LAYERS
    }
    return _halves(pairs(stems, rank, dtype))


def _halves(weights: dict[str, tuple[Tensor, Tensor]]) -> Tensors:
    down = {f"{stem}.down.weight": pair[0] for stem, pair in weights.items()}
    return down | {f"{stem}.up.weight": pair[1] for stem, pair in weights.items()}


def hotshot_motion() -> Tensors:
    """Return Hotshot-XL's temporal layers as their authors save them, for three levels."""
    names = {
        name.replace("motion_modules", "temporal_attentions")
        .replace(".temporal_transformer", "")
        .replace(".pos_encoder.pe", ".pos_encoder.positional_encoding"): value
        for name, value in reference_motion((32, 32, 64), 2, length=24).items()
    }
    assert "up_blocks.2.temporal_attentions.2.transformer_blocks.0.attention_blocks.1.to_out.0.bias" in names
    assert (
        "down_blocks.0.temporal_attentions.0.transformer_blocks.0.attention_blocks.0.pos_encoder.positional_encoding"
        in names
    )
    return names


def image_unet() -> Tensors:
    """Return some tensors of an image UNet under diffusers' names."""
    return {
        "conv_in.weight": torch.zeros(32, 4, 3, 3),
        "time_embedding.linear_1.weight": torch.zeros(64, 32),
        "down_blocks.0.resnets.0.conv1.weight": torch.zeros(32, 32, 3, 3),
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": torch.zeros(32, 768),
    }


def write(path: Path, content: object) -> Path:
    """Write a mapping as its path's ending asks: safetensors, or a pickle."""
    if path.suffix == ".safetensors":
        assert isinstance(content, dict)
        save_file({name: tensor.clone() for name, tensor in content.items()}, path)
    else:
        torch.save(content, path)
    return path


def same(first: Tensors, second: Tensors) -> bool:
    """Return whether two files hold the same names, dtypes and bits."""
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]) for name in first
    )


@pytest.fixture
def module_file(tmp_path: Path) -> Path:
    """A v3 module as released, tiny."""
    return write(tmp_path / "v3_sd15_mm.ckpt", reference_motion())


@pytest.fixture
def lora_file(tmp_path: Path) -> Path:
    """A MotionLoRA for v2 as released, tiny."""
    return write(tmp_path / "v2_lora_ZoomIn.ckpt", reference_lora(mid=True))


@pytest.fixture
def adapter_file(tmp_path: Path) -> Path:
    """The domain adapter of v3 as released, tiny."""
    return write(tmp_path / "v3_sd15_adapter.ckpt", reference_adapter(rank=8))
