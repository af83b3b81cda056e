"""A tiny Stable Diffusion XL with random weights, as diffusers' own pipeline, and as the single file that people pass around."""

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from tests.t2i.conftest import Tensors, original
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from stillmotion.t2i.geometry import CONFIGS, XL_CONFIGS
from stillmotion.t2i.original_names import UNET_PREFIX, VAE_PREFIX, XL_TEXT_PREFIXES, unet_layers, vae_layers

WIDTHS = (32, 64, 64)
SIDE = 32
"""Pixels; a latent is 16 of them wide."""


def make_pipe() -> StableDiffusionXLPipeline:
    """Return the pipeline: three levels, the finest without attention, two text encoders of widths 32 and 64."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=WIDTHS,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 1, 2],
        attention_head_dim=[1, 1, 1],  # heads, whatever it is called
        use_linear_projection=True,
        cross_attention_dim=96,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=6 * 256 + 48,
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        sample_size=SIDE,
        scaling_factor=0.13025,
        force_upcast=True,
    )
    first = CLIPTextConfig.from_pretrained(CONFIGS / "text_encoder").to_dict()
    first |= {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 1}
    second = CLIPTextConfig.from_pretrained(XL_CONFIGS / "text_encoder_2").to_dict()
    second |= {"hidden_size": 64, "intermediate_size": 72, "num_hidden_layers": 3, "num_attention_heads": 1}
    pipe = StableDiffusionXLPipeline(
        unet=unet.eval(),
        vae=vae.eval(),
        text_encoder=CLIPTextModel(CLIPTextConfig.from_dict(first)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig.from_dict(second | {"projection_dim": 48})).eval(),
        tokenizer=CLIPTokenizer.from_pretrained(CONFIGS / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(CONFIGS / "tokenizer", pad_token="!"),
        scheduler=EulerDiscreteScheduler.from_pretrained(XL_CONFIGS / "scheduler"),
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def single_file(pipe: StableDiffusionXLPipeline) -> Tensors:
    """Return the pipeline's weights as a single file of Stable Diffusion XL names and lays them out."""
    first = {name.removeprefix("text_model."): value for name, value in pipe.text_encoder.state_dict().items()}
    return {
        **original(pipe.unet.state_dict(), unet_layers(pipe.unet), UNET_PREFIX),
        **original(pipe.vae.state_dict(), vae_layers(pipe.vae), VAE_PREFIX),
        **{f"{XL_TEXT_PREFIXES[0]}text_model.{name}": value.clone() for name, value in first.items()},
        **{f"{XL_TEXT_PREFIXES[1]}{name}": value for name, value in open_clip(pipe.text_encoder_2).items()},
    }


def open_clip(encoder: CLIPTextModelWithProjection) -> Tensors:
    """Return a text encoder as OpenCLIP has it: one matrix for queries, keys and values, the projection transposed."""
    state = {name.removeprefix("text_model."): value.clone() for name, value in encoder.state_dict().items()}
    found = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "text_projection": state["text_projection.weight"].T.contiguous(),
        "logit_scale": torch.tensor(4.6),
    }
    for index in range(encoder.config.num_hidden_layers):
        ours, theirs = f"encoder.layers.{index}", f"transformer.resblocks.{index}"
        for leaf in ("weight", "bias"):
            fused = torch.cat([state[f"{ours}.self_attn.{letter}_proj.{leaf}"] for letter in "qkv"])
            found[f"{theirs}.attn.in_proj_{leaf}"] = fused
            found[f"{theirs}.attn.out_proj.{leaf}"] = state[f"{ours}.self_attn.out_proj.{leaf}"]
            found[f"{theirs}.mlp.c_fc.{leaf}"] = state[f"{ours}.mlp.fc1.{leaf}"]
            found[f"{theirs}.mlp.c_proj.{leaf}"] = state[f"{ours}.mlp.fc2.{leaf}"]
            found[f"{theirs}.ln_1.{leaf}"] = state[f"{ours}.layer_norm1.{leaf}"]
            found[f"{theirs}.ln_2.{leaf}"] = state[f"{ours}.layer_norm2.{leaf}"]
    return found
