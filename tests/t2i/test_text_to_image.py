"""One frame of a plain UNet is a picture: the same as diffusers' own pipeline makes of the same noise."""

from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tests.t2i.conftest import original
from transformers import CLIPTokenizer

from stillmotion.sampling import Denoiser, Guidance, make_sampler, sample
from stillmotion.seeding import frame_noise
from stillmotion.t2i import load_t2i
from stillmotion.t2i.geometry import CONFIGS, shipped, unet_config, vae_config
from stillmotion.t2i.original_names import unet_layers, vae_layers


@pytest.mark.parametrize(("name", "kind"), [("ddim", DDIMScheduler), ("euler", EulerDiscreteScheduler)])
def test_a_picture_is_diffusers_picture(name: str, kind: type, pipe: StableDiffusionPipeline, folder: Path) -> None:
    model = load_t2i(folder)
    noise = frame_noise(11, range(1), (4, 8, 8))
    schedule = {key: model.scheduler_config[key] for key in ("beta_start", "beta_end", "beta_schedule", "steps_offset")}
    sampler = make_sampler(name, {**schedule, "clip_sample": False}, model.prediction_type)
    pipe.scheduler = kind.from_config(sampler.config)
    prompt, negative = "a corgi running", "blurry"
    theirs = pipe(
        prompt,
        negative_prompt=negative,
        latents=noise[:, :, 0],
        guidance_scale=7.5,
        num_inference_steps=4,
        height=16,
        width=16,
        output_type="latent",
    ).images
    text, empty = model.encode_text([prompt, negative]).split(1)
    guidance = Guidance(text, empty, 7.5)
    *_, last = sample(Denoiser(model.unet), sampler, noise, guidance, num_inference_steps=4)
    ours = last.latents[:, :, 0]
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    pixels = pipe.vae.decode(theirs / pipe.vae.config.scaling_factor).sample.clamp(-1, 1)
    torch.testing.assert_close(model.decode(ours), pixels, rtol=0, atol=1e-4)


def test_full_size_is_read_off_the_names_and_shapes() -> None:
    """Of the real model, on the meta device: the layout's own numbers, and the configs that ship."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(shipped("unet"))
        vae = AutoencoderKL.from_config(shipped("vae"))
    assert unet.num_parameters() == 859_520_964
    assert (len(unet.state_dict()), len(vae.state_dict())) == (686, 248)
    names = unet_layers(unet)
    for ours, theirs in {
        "down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_k": "input_blocks.8.1.transformer_blocks.0.attn2.to_k",
        "down_blocks.2.downsamplers.0.conv": "input_blocks.9.0.op",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.2.1.conv",
        "up_blocks.2.upsamplers.0.conv": "output_blocks.8.2.conv",
        "up_blocks.3.resnets.2.conv_shortcut": "output_blocks.11.0.skip_connection",
    }.items():
        assert names[ours] == theirs
    assert vae_layers(vae)["decoder.up_blocks.0.resnets.2.conv1"] == "decoder.up.3.block.2.conv1"
    assert unet_config(original(unet.state_dict(), names, "")) == shipped("unet")
    assert vae_config(vae.state_dict()) == vae_config(original(vae.state_dict(), vae_layers(vae), "")) == shipped("vae")


def test_the_tokenizer_that_ships_is_clips_own() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(CONFIGS / "tokenizer")
    assert (len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id) == (49408, 49406, 49407)
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer.model_max_length == 77


def test_latents_and_back(folder: Path) -> None:
    model = load_t2i(folder)
    pixels = torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16)
    mean = model.encode_images(pixels)
    drawn = model.encode_images(pixels, torch.Generator().manual_seed(0))
    assert mean.shape == drawn.shape == (1, 4, 8, 8)
    assert not torch.equal(mean, drawn)
    assert torch.equal(drawn, model.encode_images(pixels, torch.Generator().manual_seed(0)))
    assert model.decode(mean).abs().max() <= 1
