"""Configs of ControlNets, T2I-Adapters and SparseCtrl encoders, read off their weights, so that no network is needed.

What shapes do not say (attention heads, norm groups) is Stable Diffusion 1.5's, as for single files of image models.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stillmotion.t2i.geometry import shipped, unet_config

FROM_UNET = (
    "in_channels",
    "flip_sin_to_cos",
    "freq_shift",
    "block_out_channels",
    "layers_per_block",
    "down_block_types",
    "downsample_padding",
    "mid_block_scale_factor",
    "act_fn",
    "norm_num_groups",
    "norm_eps",
    "cross_attention_dim",
    "attention_head_dim",
    "use_linear_projection",
)
"""What a ControlNet has in common with the UNet that it was copied from."""


def original_controlnet_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the config of the ControlNet whose weights have these names, original and without "control_model.".

    Raises:
        KeyError: A weight is missing that every ControlNet has.
    """
    config = unet_config({**tensors, "out.2.weight": tensors["input_blocks.0.0.weight"]})
    stack = [
        tensors[f"input_hint_block.{2 * index}.weight"] for index in range(_count(tensors, "input_hint_block") - 1)
    ]
    return {name: config[name] for name in FROM_UNET if name in config} | _stack_config(stack)


def controlnet_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the config of the ControlNet, or SparseCtrl encoder, whose weights have these names, diffusers'.

    Raises:
        KeyError: A weight is missing that every ControlNet has.
    """
    widths, attends, layers, level = [], [], 1, 0
    while any(name.startswith(f"down_blocks.{level}.resnets.") for name in tensors):
        widths.append(tensors[f"down_blocks.{level}.resnets.0.conv1.weight"].shape[0])
        attends.append(f"down_blocks.{level}.attentions.0.proj_in.weight" in tensors)
        layers = _count(tensors, f"down_blocks.{level}.resnets")
        level += 1
    found = shipped("unet") | {
        "in_channels": tensors["conv_in.weight"].shape[1],
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if attention else "DownBlock2D" for attention in attends],
        "cross_attention_dim": tensors["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "use_linear_projection": tensors["mid_block.attentions.0.proj_in.weight"].ndim == 2,
    }
    config = {name: found[name] for name in FROM_UNET if name in found}
    embedding = "controlnet_cond_embedding"
    if f"{embedding}.weight" in tensors:
        return config | {"conditioning_channels": tensors[f"{embedding}.weight"].shape[1]}
    blocks = [tensors[f"{embedding}.blocks.{index}.weight"] for index in range(_count(tensors, f"{embedding}.blocks"))]
    return config | _stack_config([tensors[f"{embedding}.conv_in.weight"], *blocks])


def _stack_config(stack: list[Tensor]) -> dict[str, Any]:
    """Return the config of the convolutions that take the picture, but for the last: every second one is wider."""
    return {
        "conditioning_channels": stack[0].shape[1],
        "conditioning_embedding_out_channels": [layer.shape[0] for layer in stack[::2]],
    }


def _count(tensors: Mapping[str, Tensor], place: str) -> int:
    """Return how many layers with weights are numbered under a place."""
    found = re.compile(rf"{re.escape(place)}\.(\d+)\.")
    return len({match[1] for name in tensors if (match := found.match(name))})
