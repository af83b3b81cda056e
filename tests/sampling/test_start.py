"""Drawn anew from clean latents: what diffusers' image-to-image pipeline computes, and how much of them stays."""

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionImg2ImgPipeline, UNet2DConditionModel

from stillmotion.errors import ConfigError
from stillmotion.motion import VARIANTS
from stillmotion.sampling import Course, Denoiser, Guidance, make_sampler, sample
from stillmotion.sampling.start import steps_taken
from stillmotion.seeding import frame_noise

SCHEDULE = VARIANTS["v3"].noise_schedule.scheduler_kwargs()


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()


@pytest.fixture(scope="module")
def text() -> torch.Tensor:
    return torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(
    ("name", "denoise", "steps"), [("ddim", 0.6, 5), ("euler", 0.6, 5), ("dpm++", 1.0, 3), ("unipc", 0.29, 7)]
)
def test_one_frame_is_what_diffusers_makes_of_a_picture(
    unet: UNet2DConditionModel, text: torch.Tensor, name: str, denoise: float, steps: int
) -> None:
    clean = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    *_, last = sample(
        Denoiser(unet),
        make_sampler(name, SCHEDULE, "epsilon"),
        noise.unsqueeze(2),
        Guidance(text[:1], text[1:], 7.5),
        num_inference_steps=steps,
        course=Course(start_from=clean.unsqueeze(2), denoise=denoise),
    )
    pipe = StableDiffusionImg2ImgPipeline(
        vae=AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4),
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        scheduler=make_sampler(name, SCHEDULE, "epsilon"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        image=clean,  # of four channels: latents already
        prompt_embeds=text[:1],
        negative_prompt_embeds=text[1:],
        strength=denoise,
        num_inference_steps=steps,
        guidance_scale=7.5,
        generator=torch.Generator().manual_seed(2),
        output_type="latent",
    ).images
    torch.testing.assert_close(last.latents[:, :, 0], theirs, rtol=1e-4, atol=1e-4)


class Oracle(Denoiser):
    """Tells the noise exactly, for clean latents that it knows; so every sampler must end at them."""

    def __init__(self, unet: UNet2DConditionModel, clean: torch.Tensor, kept: torch.Tensor) -> None:
        super().__init__(unet)
        self.clean, self.kept = clean, kept

    def guided(self, latents, timestep, *_, **__):
        kept = self.kept[int(timestep)]
        return (latents - kept.sqrt() * self.clean) / (1 - kept).sqrt()


def ends(unet: UNet2DConditionModel, name: str, denoise: float) -> torch.Tensor:
    """Return how far from the clean latents the loop ends that began `denoise` of the way from them."""
    sampler, noise = make_sampler(name, SCHEDULE, "epsilon"), frame_noise(3, range(2), (4, 8, 8))
    clean = torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    oracle, text = Oracle(unet, clean, sampler.alphas_cumprod), torch.zeros(1, 5, 16)
    steps = list(
        sample(
            oracle,
            sampler,
            noise,
            Guidance(text, text),
            num_inference_steps=20,
            course=Course(start_from=clean, denoise=denoise),
        )
    )
    assert len(steps) == 20 * denoise + (name == "pndm") and steps[-1].total == len(steps)
    return steps[-1].latents - clean


@pytest.mark.parametrize("denoise", [0.25, 0.6])
@pytest.mark.parametrize("name", ["ddim", "dpm++", "unipc"])
def test_all_the_noise_that_was_added_is_taken_away(unet: UNet2DConditionModel, name: str, denoise: float) -> None:
    assert ends(unet, name, denoise).abs().max() < 1e-5


def test_pndm_warms_up_wherever_it_begins(unet: UNet2DConditionModel) -> None:
    """It takes its second timestep twice, and ends at the noise of timestep 0, from wherever it started."""
    torch.testing.assert_close(ends(unet, "pndm", 0.25), ends(unet, "pndm", 1.0), rtol=0, atol=1e-5)


def test_the_share_of_the_steps() -> None:
    assert [steps_taken(*pair) for pair in ((25, 0.6), (100, 0.29), (10, 1.0), (3, 0.34))] == [15, 29, 10, 1]
    with pytest.raises(ConfigError, match=r"denoise: 0.05 of 10 steps is less than one step; expected at least 0.1"):
        steps_taken(10, 0.05)
