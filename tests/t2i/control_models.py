"""Tiny control models with random weights, as diffusers has them and as their files are laid out."""

import copy
from pathlib import Path

import torch
from diffusers import ControlNetModel, SparseControlNetModel, StableDiffusionPipeline, T2IAdapter, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from stillmotion.t2i import T2I

SIDE = 16
"""Pixels along a side of the clips; the tiny VAE makes 8 latents of them."""

FEATURES = 24
"""Width of the feature vector of a picture."""


def t2i_of(pipe: StableDiffusionPipeline) -> T2I:
    """Return the tiny model, its UNet copied: tests put layers into it."""
    return T2I(
        unet=copy.deepcopy(pipe.unet).eval().requires_grad_(False),
        vae=pipe.vae,
        text_encoder=pipe.text_encoder,
        tokenizer=pipe.tokenizer,
        scheduler_config=dict(pipe.scheduler.config),
        source="tiny",
    )


def shaken(model: nn.Module, seed: int) -> nn.Module:
    """Return the model with random weights everywhere, so that nothing is zero by birth."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        gain = float("norm" in name and name.endswith("weight"))
        parameter.data = 0.6 * noise / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else gain + 0.2 * noise
    return model.eval().requires_grad_(False)


def make_controlnet(unet: UNet2DConditionModel, **config: object) -> ControlNetModel:
    net = shaken(ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16), **config), 1)
    net.controlnet_cond_embedding.conv_out.weight *= 20  # so that the picture counts
    return net


def make_adapter(kind: str = "full_adapter", factor: int = 2, in_channels: int = 3) -> T2IAdapter:
    channels = [32, 64] if kind == "full_adapter" else [32]
    blocks = 2 if kind == "full_adapter" else 4
    return shaken(
        T2IAdapter(
            in_channels=in_channels,
            channels=channels,
            num_res_blocks=blocks,
            downscale_factor=factor,
            adapter_type=kind,
        ),
        2,
    )


def make_sparse(*, simplified: bool) -> SparseControlNetModel:
    """Return diffusers' own encoder: simplified is rgb, which takes latents, otherwise scribble."""
    model = SparseControlNetModel(
        conditioning_channels=4 if simplified else 3,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        cross_attention_dim=64,
        conditioning_embedding_out_channels=(8, 16),
        use_simplified_condition_embedding=simplified,
    )
    return shaken(model, 3)


def make_ip_adapter(unet: UNet2DConditionModel, *, plus: bool = False) -> dict[str, dict[str, Tensor]]:
    """Return the weights of an IP-Adapter as its files are laid out: plain, 4 tokens of a picture; or plus."""
    generator = torch.Generator().manual_seed(4)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / shape[-1] ** 0.5

    width = unet.config.cross_attention_dim
    crossed = [layer for name, layer in unet.named_modules() if name.endswith("attn2")]
    layers = {
        f"{2 * index + 1}.{leaf}.weight": 2 * noise(layer.inner_dim, width)
        for index, layer in enumerate(crossed)
        for leaf in ("to_k_ip", "to_v_ip")
    }
    if not plus:
        norm = {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
        proj = {"proj.weight": noise(4 * width, FEATURES), "proj.bias": torch.zeros(4 * width)}
        return {"image_proj": proj | norm, "ip_adapter": layers}
    inner = 64
    resampler = {"latents": noise(1, 6, inner), "proj_in.weight": noise(inner, 32), "proj_in.bias": noise(inner)}
    resampler |= {"proj_out.weight": noise(width, inner), "proj_out.bias": noise(width)}
    resampler |= {"norm_out.weight": torch.ones(width), "norm_out.bias": noise(width)}
    for index in range(4):
        place = f"layers.{index}"
        for norm in ("0.norm1", "0.norm2", "1.0"):
            resampler |= {f"{place}.{norm}.weight": torch.ones(inner), f"{place}.{norm}.bias": noise(inner)}
        resampler |= {f"{place}.0.to_q.weight": noise(64, inner), f"{place}.0.to_kv.weight": noise(128, inner)}
        resampler |= {f"{place}.0.to_out.weight": noise(inner, 64), f"{place}.1.1.weight": noise(4 * inner, inner)}
        resampler |= {f"{place}.1.3.weight": noise(inner, 4 * inner)}
    return {"image_proj": resampler, "ip_adapter": layers}


def flat(parts: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{part}.{name}": value for part, weights in parts.items() for name, value in weights.items()}


def save_image_encoder(folder: Path) -> Path:
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        projection_dim=FEATURES,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=24,
        patch_size=8,
    )
    shaken(CLIPVisionModelWithProjection(config), 5).save_pretrained(folder)
    return folder


def pictures(count: int, side: int = SIDE, seed: int = 6) -> Tensor:
    """Return random pictures of 8 bit, in [0, 1]: smooth noise, so that shrinking leaves something."""
    small = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return (nn.functional.interpolate(small, size=(side, side)) * 255).round() / 255
