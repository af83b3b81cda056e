"""A tiny Stable Diffusion folder with random weights, and a folder of small real clips with captions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from stillmotion.data import write_clip
from stillmotion.toyworld import models
from stillmotion.training import TrainConfig

WIDTHS = (32, 64)
SIDE = 32
CAPTIONS = ("a red ball on grass", "a blue box on sand", "a green star on snow", "a red box on grass", "a ball")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder of a model for 32x32 pixels, two levels wide."""
    folder = tmp_path_factory.mktemp("tiny-model")
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        sample_size=SIDE,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    unet = UNet2DConditionModel(
        sample_size=SIDE // 8,
        block_out_channels=WIDTHS,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
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
    classes = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    }
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", **classes}))
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five clips of 12 frames, 40x32 pixels, a square going right, each with its caption beside it."""
    folder = tmp_path_factory.mktemp("clips")
    for index, caption in enumerate(CAPTIONS):
        frames = np.full((12, 32, 40, 3), 40 * index, np.uint8)
        for time, frame in enumerate(frames):
            frame[8:20, 2 * time : 2 * time + 10] = (250, 20 * index, 30)
        write_clip(list(frames), folder / f"{index}.mp4", 8)
        (folder / f"{index}.txt").write_text(caption)
    return folder


@pytest.fixture
def config(tiny_model: Path, clips: Path, tmp_path: Path) -> TrainConfig:
    """A short training of a new motion module."""
    return TrainConfig(
        stage="motion_module",
        data=str(clips),
        output_dir=tmp_path / "run",
        model=str(tiny_model),
        num_frames=4,
        frame_stride=2,
        width=SIDE,
        num_steps=6,
        batch_size=4,
        learning_rate=1e-3,
        warmup_steps=2,
        ema_decay=0.9,
        checkpoint_every=2,
        validate_every=3,
        save_dtype="float32",
        device="cpu",
    )
