"""A tiny Stable Diffusion 1.5 with random weights: as a diffusers folder, and as the single files that people pass around."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from stillmotion.t2i.geometry import CONFIGS
from stillmotion.t2i.original_names import TEXT_PREFIX, UNET_PREFIX, VAE_PREFIX, unet_layers, vae_layers

Tensors = dict[str, Tensor]


def make_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=2,
        latent_channels=4,
        sample_size=128,
    )


@pytest.fixture(scope="session")
def pipe() -> StableDiffusionPipeline:
    """Diffusers' own pipeline of the tiny model; tests leave it as it is."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(32, 64),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=8,
    )
    text = CLIPTextConfig.from_pretrained(CONFIGS / "text_encoder").to_dict()
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 1}
    encoder = CLIPTextModel(CLIPTextConfig.from_dict(text | sizes | {"projection_dim": 64}))
    pipe = StableDiffusionPipeline(
        unet=unet,
        vae=make_vae(),
        text_encoder=encoder.eval(),
        tokenizer=CLIPTokenizer.from_pretrained(CONFIGS / "tokenizer"),
        scheduler=PNDMScheduler.from_pretrained(CONFIGS / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def folder(pipe: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as a diffusers folder; tests that change it take `own_folder`."""
    path = tmp_path_factory.mktemp("model") / "tiny-sd"
    pipe.save_pretrained(path)
    return path


@pytest.fixture
def own_folder(folder: Path, tmp_path: Path) -> Path:
    """The folder, copied for a test that changes it."""
    return Path(shutil.copytree(folder, tmp_path / "own"))


def original(state: Tensors, layers: dict[str, str], prefix: str) -> Tensors:
    """Return weights under original names; a VAE's attention as the 1×1 convolutions that it was there."""
    named = {}
    for name, value in state.items():
        layer, _, leaf = name.rpartition(".")
        is_conv = ".attn_1." in layers[layer] and value.ndim == 2
        named[f"{prefix}{layers[layer]}.{leaf}"] = (value[..., None, None] if is_conv else value).clone()
    return named


@pytest.fixture(scope="session")
def tensors(pipe: StableDiffusionPipeline) -> Tensors:
    """The model's weights as a single file of Stable Diffusion 1.5 names them."""
    text = {name.removeprefix("text_model."): value for name, value in pipe.text_encoder.state_dict().items()}
    return {
        **original(pipe.unet.state_dict(), unet_layers(pipe.unet), UNET_PREFIX),
        **original(pipe.vae.state_dict(), vae_layers(pipe.vae), VAE_PREFIX),
        **{f"{TEXT_PREFIX}text_model.{name}": value.clone() for name, value in text.items()},
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write tensors as a file of that name: safetensors, or a pickle with wrappers around."""

    def written(tensors: Tensors, name: str = "tiny.safetensors", wrap: str | None = None, **beside: object) -> Path:
        path = tmp_path / name
        if path.suffix == ".safetensors":
            save_file(tensors, path)
        else:
            torch.save({wrap: tensors, **beside} if wrap else tensors, path)
        return path

    return written
