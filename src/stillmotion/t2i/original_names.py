"""Names of weights in the original (CompVis) layout of Stable Diffusion, from those in diffusers'.

The tables are made from a model's own structure, so they hold for any widths and depths, in both directions.
"""

from collections.abc import Iterator

from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import nn

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
"""Parts of a UNet's ResNet block."""

VAE_RESNET = {"conv_shortcut": "nin_shortcut"}
"""Parts of a VAE's ResNet block that are called differently."""

VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
"""Parts of a VAE's attention."""

UNET_PREFIX, VAE_PREFIX, TEXT_PREFIX = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
"""Where the parts of a model lie in a single file."""

XL_TEXT_PREFIXES = ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model.")
"""Where the text encoders of Stable Diffusion XL lie."""


def unet_layers(unet: UNet2DConditionModel) -> dict[str, str]:
    """Return the original name of every layer of a UNet that has weights, without `UNET_PREFIX`.

    Layers that peft has wrapped are named as before.
    """
    return dict(_renamed(unet, _unet_places(unet), {"resnets": RESNET}))


def controlnet_layers(net: ControlNetModel) -> dict[str, str]:
    """Return the original name of every layer of a ControlNet that has weights, without "control_model."."""
    return dict(_renamed(net, _controlnet_places(net), {"resnets": RESNET}))


def vae_layers(vae: AutoencoderKL) -> dict[str, str]:
    """Return the original name of every layer of a VAE that has weights, without `VAE_PREFIX`."""
    return dict(_renamed(vae, _vae_places(vae), {"resnets": VAE_RESNET, "attentions": VAE_ATTENTION}))


def _renamed(
    model: nn.Module, places: Iterator[tuple[str, str]], parts: dict[str, dict[str, str]]
) -> Iterator[tuple[str, str]]:
    for place, original in places:
        kind = place.split(".")[-2] if place.count(".") else ""
        table = parts.get(kind, {})
        for tail in _weighted(model.get_submodule(place)):
            yield f"{place}.{tail}".rstrip("."), f"{original}.{table.get(tail, tail)}".rstrip(".")


def _weighted(module: nn.Module) -> Iterator[str]:
    """Yield the paths of the layers in a module that have weights of their own, peft's wrappers seen as one layer."""
    for path, layer in module.named_modules():
        if ".lora_" not in f".{path}" and any(True for _ in layer.parameters(recurse=False)):
            yield path.removesuffix("base_layer").rstrip(".")


def _unet_places(unet: UNet2DConditionModel) -> Iterator[tuple[str, str]]:
    """Yield every block of a UNet as (its place, its place in the original, where blocks are numbered through)."""
    yield from _places_down(unet)
    number = -1
    for level, block in enumerate(unet.up_blocks):
        moves = bool(getattr(block, "attentions", None))
        for index in range(len(block.resnets)):
            number += 1
            yield f"up_blocks.{level}.resnets.{index}", f"output_blocks.{number}.0"
            if moves:
                yield f"up_blocks.{level}.attentions.{index}", f"output_blocks.{number}.1"
        if block.upsamplers:
            yield f"up_blocks.{level}.upsamplers.0.conv", f"output_blocks.{number}.{2 if moves else 1}.conv"
    yield "conv_norm_out", "out.0"
    yield "conv_out", "out.2"


def _places_down(unet: UNet2DConditionModel | ControlNetModel) -> Iterator[tuple[str, str]]:
    """Yield the blocks up to the middle, which a ControlNet has too."""
    yield "conv_in", "input_blocks.0.0"
    yield "time_embedding.linear_1", "time_embed.0"
    yield "time_embedding.linear_2", "time_embed.2"
    if getattr(unet, "add_embedding", None) is not None:  # Stable Diffusion XL's, of sizes and whole texts
        yield "add_embedding.linear_1", "label_emb.0.0"
        yield "add_embedding.linear_2", "label_emb.0.2"
    number = 0
    for level, block in enumerate(unet.down_blocks):
        for index in range(len(block.resnets)):
            number += 1
            yield f"down_blocks.{level}.resnets.{index}", f"input_blocks.{number}.0"
            if getattr(block, "attentions", None):
                yield f"down_blocks.{level}.attentions.{index}", f"input_blocks.{number}.1"
        if block.downsamplers:
            number += 1
            yield f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{number}.0.op"
    for index in range(len(unet.mid_block.resnets)):
        yield f"mid_block.resnets.{index}", f"middle_block.{2 * index}"
    for index in range(len(unet.mid_block.attentions)):
        yield f"mid_block.attentions.{index}", f"middle_block.{2 * index + 1}"


def _controlnet_places(net: ControlNetModel) -> Iterator[tuple[str, str]]:
    """Yield every block of a ControlNet: half a UNet, the stack that takes the picture, and the zero convolutions."""
    yield from _places_down(net)
    stack = [f"blocks.{index}" for index in range(len(net.controlnet_cond_embedding.blocks))]
    for index, name in enumerate(("conv_in", *stack, "conv_out")):
        yield f"controlnet_cond_embedding.{name}", f"input_hint_block.{2 * index}"  # activations are numbered, too
    for index in range(len(net.controlnet_down_blocks)):
        yield f"controlnet_down_blocks.{index}", f"zero_convs.{index}.0"
    yield "controlnet_mid_block", "middle_block_out.0"


def _vae_places(vae: AutoencoderKL) -> Iterator[tuple[str, str]]:
    for half, blocks, sampler in (("encoder", "down_blocks", "downsample"), ("decoder", "up_blocks", "upsample")):
        part = getattr(vae, half)
        levels = getattr(part, blocks)
        yield f"{half}.conv_in", f"{half}.conv_in"
        for level, block in enumerate(levels):
            # The original counts the decoder's levels from the last one that is computed.
            original = f"{half}.down.{level}" if half == "encoder" else f"{half}.up.{len(levels) - 1 - level}"
            for index in range(len(block.resnets)):
                yield f"{half}.{blocks}.{level}.resnets.{index}", f"{original}.block.{index}"
            if getattr(block, f"{sampler}rs"):
                yield f"{half}.{blocks}.{level}.{sampler}rs.0.conv", f"{original}.{sampler}.conv"
        for index in range(len(part.mid_block.resnets)):
            yield f"{half}.mid_block.resnets.{index}", f"{half}.mid.block_{index + 1}"
        yield f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1"
        yield f"{half}.conv_norm_out", f"{half}.norm_out"
        yield f"{half}.conv_out", f"{half}.conv_out"
    yield "quant_conv", "quant_conv"
    yield "post_quant_conv", "post_quant_conv"
