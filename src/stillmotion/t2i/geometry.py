"""Configs of a model's parts, read off the shapes of its weights.

What shapes do not say (attention heads, norm groups, the VAE's scale) comes from the own configs of Stable Diffusion 1.5
and XL, which lie beside this file, so that a single file needs no network.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

CONFIGS = Path(__file__).parent / "configs" / "sd15"
"""Stable Diffusion 1.5 as a diffusers folder without weights: configs, noise schedule, tokenizer."""

XL_CONFIGS = CONFIGS.with_name("sdxl")
"""What Stable Diffusion XL has otherwise. Its first text encoder and both tokenizers are those of 1.5."""

HEAD_WIDTH = 64
"""Channels of one head in every text encoder of CLIP's, and in the UNet of Stable Diffusion XL."""


def shipped(part: str, name: str = "config.json", configs: Path = CONFIGS) -> dict[str, Any]:
    """Return Stable Diffusion 1.5's config of a part ("unet", "vae", "text_encoder", "scheduler"), or that of `XL_CONFIGS`."""
    return dict(json.loads((configs / part / name).read_text(encoding="utf-8")))


def unet_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the config of the UNet whose weights have these names, original and without prefix.

    Raises:
        KeyError: A weight is missing that every UNet of Stable Diffusion has.
    """
    levels: list[list[tuple[int, bool]]] = [[]]  # of every ResNet in the way down: channels, attention or not
    number = 1
    while any(name.startswith(f"input_blocks.{number}.") for name in tensors):
        if f"input_blocks.{number}.0.op.weight" in tensors:
            levels.append([])
        else:
            channels = tensors[f"input_blocks.{number}.0.out_layers.3.weight"].shape[0]
            levels[-1].append((channels, f"input_blocks.{number}.1.proj_in.weight" in tensors))
        number += 1
    attends = [layers[0][1] if layers else False for layers in levels]
    entrance = tensors["input_blocks.0.0.weight"]
    widths = [layers[-1][0] if layers else entrance.shape[0] for layers in levels]
    return _unet_of_family(tensors, widths) | {
        "in_channels": entrance.shape[1],
        "out_channels": tensors["out.2.weight"].shape[0],
        "block_out_channels": widths,
        "layers_per_block": len(levels[0]),
        "down_block_types": ["CrossAttnDownBlock2D" if attention else "DownBlock2D" for attention in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if attention else "UpBlock2D" for attention in reversed(attends)],
        "cross_attention_dim": tensors["middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "use_linear_projection": tensors["middle_block.1.proj_in.weight"].ndim == 2,
    }


def is_xl(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether a UNet in original names is one of Stable Diffusion XL: it takes sizes and texts as a whole."""
    return "label_emb.0.0.weight" in tensors


def _unet_of_family(tensors: Mapping[str, Tensor], widths: list[int]) -> dict[str, Any]:
    """Return the config of Stable Diffusion 1.5's UNet, or of XL's, with what its depths and widths tell."""
    if not is_xl(tensors):
        return shipped("unet")
    config = shipped("unet", configs=XL_CONFIGS)
    depths: dict[int, int] = {}
    for name in tensors:
        if found := re.match(r"input_blocks\.(\d+)\.1\.transformer_blocks\.(\d+)\.", name):
            level = sum(f"input_blocks.{n}.0.op.weight" in tensors for n in range(int(found[1])))
            depths[level] = max(depths.get(level, 0), int(found[2]) + 1)
    told = tensors["label_emb.0.0.weight"].shape[1]
    return config | {
        "attention_head_dim": [max(1, width // HEAD_WIDTH) for width in widths],
        "transformer_layers_per_block": [depths.get(level, 1) for level in range(len(widths))],
        "projection_class_embeddings_input_dim": told,
    }


def vae_config(tensors: Mapping[str, Tensor], configs: Path = CONFIGS) -> dict[str, Any]:
    """Return the config of the VAE whose weights have these names, original or diffusers', without prefix.

    Shapes do not tell whether it is Stable Diffusion XL's, whose latents are scaled otherwise: `configs` does.

    Raises:
        KeyError: A weight is missing that every VAE of Stable Diffusion has.
    """
    diffusers = "encoder.down_blocks.0.resnets.0.conv1.weight" in tensors
    level, resnet = ("encoder.down_blocks.{}", "resnets") if diffusers else ("encoder.down.{}", "block")
    widths: list[int] = []
    layers = 0
    while f"{level.format(len(widths))}.{resnet}.0.conv1.weight" in tensors:
        widths.append(tensors[f"{level.format(len(widths))}.{resnet}.0.conv1.weight"].shape[0])
    while f"{level.format(0)}.{resnet}.{layers}.conv1.weight" in tensors:
        layers += 1
    return shipped("vae", configs=configs) | {
        "in_channels": tensors["encoder.conv_in.weight"].shape[1],
        "out_channels": tensors["decoder.conv_out.weight"].shape[0],
        "latent_channels": tensors["decoder.conv_in.weight"].shape[1],
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
    }


def text_encoder_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the config of the CLIP text encoder whose weights have these names, without "text_model.".

    One with a projection of whole texts is Stable Diffusion XL's second.

    Raises:
        KeyError: A weight is missing that every CLIP text encoder has.
    """
    words, width = tensors["embeddings.token_embedding.weight"].shape
    layers = 0
    while f"encoder.layers.{layers}.mlp.fc1.weight" in tensors:
        layers += 1
    projection = tensors.get("text_projection.weight")
    config = shipped("text_encoder") if projection is None else shipped("text_encoder_2", configs=XL_CONFIGS)
    return config | {
        "vocab_size": words,
        "hidden_size": width,
        "projection_dim": width if projection is None else projection.shape[0],
        "max_position_embeddings": tensors["embeddings.position_embedding.weight"].shape[0],
        "intermediate_size": tensors["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // HEAD_WIDTH),
    }
