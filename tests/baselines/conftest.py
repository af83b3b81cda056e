"""A tiny Stable Diffusion folder with random weights, loaded, and a clip of a square that goes right."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from stillmotion.data import write_clip
from stillmotion.t2i import T2I, load_t2i
from stillmotion.toyworld import models

SIDE, FRAMES = 32, 4


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder of a model for 32x32 pixels, latents of 8x8, two levels wide."""
    folder = tmp_path_factory.mktemp("tiny-model")
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8),
        norm_num_groups=4,
        sample_size=SIDE,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
    )
    unet = UNet2DConditionModel(
        sample_size=SIDE // 4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    tokenizer = models.make_tokenizer(folder / "tokenizer")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = CLIPTextModel(CLIPTextConfig(vocab_size=len(tokenizer), max_position_embeddings=20, **sizes))
    for part, name in ((vae, "vae"), (unet, "unet"), (text, "text_encoder")):
        part.save_pretrained(folder / name)
    schedule = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    DDIMScheduler(clip_sample=False, steps_offset=1, set_alpha_to_one=False, **schedule).save_pretrained(
        folder / "scheduler"
    )
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return folder


@pytest.fixture(scope="session")
def t2i(tiny_model: Path) -> T2I:
    """The model, loaded once: a baseline leaves it as it was."""
    return load_t2i(tiny_model)


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 8 frames, 32x32 pixels, without loss."""
    frames = np.full((8, SIDE, SIDE, 3), 40, np.uint8)
    for time, frame in enumerate(frames):
        frame[8:20, 2 * time : 2 * time + 10] = (250, 90, 30)
    return write_clip(frames, tmp_path_factory.mktemp("video") / "square", 8).path
