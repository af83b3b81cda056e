"""The models that are timed: Stable Diffusion 1.5's geometry with random weights, at several widths."""

import torch
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from stillmotion.motion import MotionModule
from stillmotion.seeding import derive
from stillmotion.t2i import T2I
from stillmotion.t2i.geometry import CONFIGS, HEAD_WIDTH, shipped

SIZES: dict[str, tuple[int, ...]] = {
    "sd15": (320, 640, 1280, 1280),
    "half": (160, 320, 640, 640),
    "tiny": (64, 128, 128, 128),
}
"""Widths of the UNet's levels that can be timed: Stable Diffusion 1.5's own, and smaller ones."""

VAE_WIDTHS: dict[str, tuple[int, ...]] = {
    "sd15": (128, 256, 512, 512),
    "half": (64, 128, 256, 256),
    "tiny": (32, 64, 64, 64),
}
"""Widths of the VAE's levels beside such a UNet."""

TEXT_SIZES: dict[str, tuple[int, int]] = {"sd15": (768, 12), "half": (384, 12), "tiny": (64, 2)}
"""Width and layers of the text encoder beside such a UNet."""


def make_parts(size: str, dtype: torch.dtype) -> tuple[UNet2DConditionModel, MotionModule, MotionAdapter]:
    """Return a UNet, our motion module and diffusers' adapter with the same weights."""
    widths = SIZES[size]
    unet = UNet2DConditionModel(block_out_channels=widths, cross_attention_dim=768, attention_head_dim=8)
    # Their motion norm pools over frames; ours does the same here, so that both compute one function.
    motion = MotionModule.from_variant("v3", block_out_channels=widths, motion_norm="across_frames")
    for site in motion.sites().values():
        nn.init.normal_(site.proj_out.weight, std=0.02)
    adapter = MotionAdapter(block_out_channels=widths, use_motion_mid_block=False)
    adapter.load_state_dict(motion.state_dict())
    return unet.eval().to(dtype), motion.eval().to(dtype), adapter.eval().to(dtype)


def make_vae(size: str) -> AutoencoderKL:
    """Return the VAE of that size, frozen; always the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(0, "bench vae"))
        vae = AutoencoderKL.from_config(shipped("vae") | {"block_out_channels": VAE_WIDTHS[size]})
    return vae.eval().requires_grad_(requires_grad=False)


def make_t2i(size: str) -> T2I:
    """Return an image model of that size in float32, frozen; every part has Stable Diffusion 1.5's layers, in its width.

    The text encoder of "tiny" has two layers; its tokens are CLIP's at every size.
    """
    width, layers = TEXT_SIZES[size]
    text = shipped("text_encoder") | {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "projection_dim": width,
        "num_attention_heads": width // HEAD_WIDTH,
        "num_hidden_layers": layers,
    }
    unet = shipped("unet") | {"block_out_channels": SIZES[size], "cross_attention_dim": width}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(0, "bench models"))
        model = T2I(
            unet=UNet2DConditionModel.from_config(unet),
            vae=make_vae(size),
            text_encoder=CLIPTextModel(CLIPTextConfig(**text)),
            tokenizer=CLIPTokenizer.from_pretrained(str(CONFIGS / "tokenizer"), local_files_only=True),
            scheduler_config=shipped("scheduler", "scheduler_config.json"),
            source=f"random weights of size {size}",
        )
    for part in (model.unet, model.text_encoder):
        part.eval().requires_grad_(requires_grad=False)
    return model


def make_motion(size: str) -> MotionModule:
    """Return an untrained v3 motion module for that image model, in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(0, "bench motion"))
        return MotionModule.from_variant("v3", block_out_channels=SIZES[size])
