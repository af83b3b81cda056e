"""The loop against diffusers' own pipeline, its seeds, its guidance and its end on request."""

import copy

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel

from stillmotion.errors import Cancelled, ConfigError
from stillmotion.motion import VARIANTS
from stillmotion.products import faster_products
from stillmotion.sampling import Course, Denoiser, Diffusion, Guidance, make_sampler, sample
from stillmotion.seeding import frame_noise

SCHEDULE = VARIANTS["v3"].noise_schedule.scheduler_kwargs()


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    """Return a tiny image model."""
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
    """Return features of a caption and of the empty one."""
    return torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(("name", "theirs"), [("ddim", DDIMScheduler), ("euler", EulerDiscreteScheduler)])
@torch.no_grad()
def test_one_frame_is_what_diffusers_samples(
    unet: UNet2DConditionModel, text: torch.Tensor, name: str, theirs: type
) -> None:
    noise = frame_noise(3, range(1), (4, 8, 8))
    sampler = make_sampler(name, SCHEDULE, "epsilon")
    *_, last = sample(Denoiser(unet), sampler, noise, Guidance(text[:1], text[1:], 7.5), num_inference_steps=5)
    other = theirs.from_config(sampler.config)
    other.set_timesteps(5)
    latents = noise[:, :, 0] * other.init_noise_sigma
    for t in other.timesteps:
        both = other.scale_model_input(torch.cat([latents] * 2), t)
        # Products by one library on both sides: guidance magnifies what rounding differs in.
        with faster_products(both.dtype, both.device):
            empty, told = unet(both, t, torch.cat([text[1:], text[:1]])).sample.chunk(2)
        latents = other.step(empty + 7.5 * (told - empty), t, latents).prev_sample
    torch.testing.assert_close(last.latents[:, :, 0], latents, rtol=1e-5, atol=1e-5)


def ends(
    unet: UNet2DConditionModel, text: torch.Tensor, name: str, seeds: list[int], num_frames: int = 2
) -> torch.Tensor:
    """Return the clean latents of one clip per seed; DDIM with noise of its own."""
    torch.randn(7)  # what ran before does not matter
    noise = torch.cat([frame_noise(seed, range(num_frames), (4, 8, 8)) for seed in seeds])
    guidance = Guidance(text[:1].expand(len(seeds), -1, -1), text[1:].expand(len(seeds), -1, -1), 2.0)
    sampler = make_sampler(name, SCHEDULE, "epsilon")
    *_, last = sample(
        Denoiser(unet), sampler, noise, guidance, num_inference_steps=3, seed=seeds, course=Course(eta=1.0)
    )
    return last.latents


STOCHASTIC = ["ddim", "euler_a", "dpm++_sde", "lcm"]


@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_seed_alone_equals_itself_in_a_batch(unet: UNet2DConditionModel, text: torch.Tensor, name: str) -> None:
    alone = ends(unet, text, name, [9])
    assert torch.equal(alone, ends(unet, text, name, [9]))
    torch.testing.assert_close(ends(unet, text, name, [4, 9])[1:], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_longer_clip_of_stills_begins_the_same(unet: UNet2DConditionModel, text: torch.Tensor, name: str) -> None:
    """Nothing moves in a plain UNet, so only the samplers' own noise could tell a long clip from a short one."""
    longer = ends(unet, text, name, [9], num_frames=4)
    torch.testing.assert_close(longer[:, :, :2], ends(unet, text, name, [9]), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(longer[:, :, 2], longer[:, :, 3], atol=0.1)


def test_a_longer_clip_begins_with_the_same_noise() -> None:
    assert torch.equal(frame_noise(5, range(8), (4, 2, 2))[:, :, :3], frame_noise(5, range(3), (4, 2, 2)))
    assert not torch.equal(frame_noise(5, range(1), (4, 2, 2)), frame_noise(6, range(1), (4, 2, 2)))


def test_guidance_one_computes_one_half(unet: UNet2DConditionModel, text: torch.Tensor) -> None:
    sizes = []
    handle = unet.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    noise = frame_noise(3, range(2), (4, 8, 8))
    for scale in (1.0, 2.0):
        sampler = make_sampler("ddim", SCHEDULE, "epsilon")
        list(sample(Denoiser(unet), sampler, noise, Guidance(text[:1], text[1:], scale), num_inference_steps=1))
    handle.remove()
    assert sizes == [2, 4]


def test_it_stops_where_it_is_told(unet: UNet2DConditionModel, text: torch.Tensor) -> None:
    done = []
    sampler = make_sampler("ddim", SCHEDULE, "epsilon")
    steps = sample(
        Denoiser(unet),
        sampler,
        frame_noise(3, range(1), (4, 8, 8)),
        Guidance(text[:1], text[1:]),
        num_inference_steps=6,
        cancelled=iter([False, False, True]).__next__,
    )
    with pytest.raises(Cancelled, match="2 of 6"):
        done.extend(steps)


def test_more_steps_than_a_sampler_takes_are_refused(unet: UNet2DConditionModel, text: torch.Tensor) -> None:
    steps = sample(
        Denoiser(unet),
        make_sampler("lcm", SCHEDULE, "epsilon"),
        frame_noise(3, range(1), (4, 8, 8)),
        Guidance(text[:1], text[1:]),
        num_inference_steps=60,
    )
    with pytest.raises(ConfigError, match="num_inference_steps: 60 is not for this sampler"):
        next(steps)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_loss_is_the_paper_s(unet: UNet2DConditionModel, text: torch.Tensor, prediction_type: str) -> None:
    """Eq. 7 written out, with one timestep per clip; what the sampler would turn the prediction into is its target."""
    diffusion = Diffusion.from_config({**SCHEDULE, "prediction_type": prediction_type})
    latents, noise = torch.randn(2, 2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    timesteps = torch.tensor([10, 700])
    with torch.no_grad():
        loss = Denoiser(unet).loss(latents, noise, timesteps, text, diffusion)
    scheduler = DDIMScheduler(**SCHEDULE, prediction_type=prediction_type)
    for clip, t in enumerate(timesteps):
        noisy = scheduler.add_noise(latents[clip], noise[clip], t)
        wanted = noise[clip] if prediction_type == "epsilon" else scheduler.get_velocity(latents[clip], noise[clip], t)
        with torch.no_grad():
            told = unet(noisy.transpose(0, 1), t, text[clip : clip + 1].expand(3, -1, -1)).sample.transpose(0, 1)
        torch.testing.assert_close(loss[clip], (told - wanted).square().mean(), rtol=1e-4, atol=1e-6)


def test_the_sampler_adds_up_in_the_latents_own_dtype(unet: UNet2DConditionModel, text: torch.Tensor) -> None:
    """A UNet in bfloat16 is asked in bfloat16; the latents stay float32 from step to step."""
    half = copy.deepcopy(unet).to(torch.bfloat16)
    noise = frame_noise(3, range(2), (4, 8, 8))
    guidance = Guidance(text[:1], text[1:], 2.0)
    latents = []
    for kind in (unet, half):
        sampler = make_sampler("ddim", SCHEDULE, "epsilon")
        *_, last = sample(Denoiser(kind), sampler, noise, guidance, num_inference_steps=3)
        latents.append(last.latents)
    assert latents[1].dtype is torch.float32
    torch.testing.assert_close(*latents, rtol=0, atol=0.2)


def test_a_guided_prediction_carries_no_gradients(unet: UNet2DConditionModel, text: torch.Tensor) -> None:
    latents = frame_noise(3, range(2), (4, 8, 8))
    assert torch.is_grad_enabled() and next(unet.parameters()).requires_grad
    assert not Denoiser(unet).guided(latents, torch.tensor(500), Guidance(text[:1], text[1:], 7.5)).requires_grad
