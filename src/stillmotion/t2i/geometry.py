"""Configs of a model's parts, read off the shapes of its weights.

What shapes do not say (attention heads, norm groups, the VAE's scale) comes from Stable Diffusion 1.5's own configs, which
lie beside this file, so that a single file needs no network.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

CONFIGS = Path(__file__).parent / "configs" / "sd15"
"""Stable Diffusion 1.5 as a diffusers folder without weights: configs, noise schedule, tokenizer."""

HEAD_WIDTH = 64
"""Channels of one head in every text encoder of CLIP's."""


def shipped(part: str, name: str = "config.json") -> dict[str, Any]:
    """Return Stable Diffusion 1.5's config of a part: "unet", "vae", "text_encoder", "scheduler"."""
    return dict(json.loads((CONFIGS / part / name).read_text(encoding="utf-8")))


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
    return shipped("unet") | {
        "in_channels": entrance.shape[1],
        "out_channels": tensors["out.2.weight"].shape[0],
        "block_out_channels": [layers[-1][0] if layers else entrance.shape[0] for layers in levels],
        "layers_per_block": len(levels[0]),
        "down_block_types": ["CrossAttnDownBlock2D" if attention else "DownBlock2D" for attention in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if attention else "UpBlock2D" for attention in reversed(attends)],
        "cross_attention_dim": tensors["middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "use_linear_projection": tensors["middle_block.1.proj_in.weight"].ndim == 2,
    }


def vae_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the config of the VAE whose weights have these names, original or diffusers', without prefix.

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
    return shipped("vae") | {
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

    Raises:
        KeyError: A weight is missing that every CLIP text encoder has.
    """
    words, width = tensors["embeddings.token_embedding.weight"].shape
    layers = 0
    while f"encoder.layers.{layers}.mlp.fc1.weight" in tensors:
        layers += 1
    return shipped("text_encoder") | {
        "vocab_size": words,
        "hidden_size": width,
        "projection_dim": width,
        "max_position_embeddings": tensors["embeddings.position_embedding.weight"].shape[0],
        "intermediate_size": tensors["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // HEAD_WIDTH),
    }
