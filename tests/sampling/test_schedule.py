"""The forward process: signal and noise keep unit power, targets turn back into what was mixed."""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillmotion.errors import ConfigError
from stillmotion.motion import VARIANTS
from stillmotion.sampling import SAMPLERS, Diffusion, make_sampler

SCHEDULE = VARIANTS["v3"].noise_schedule.scheduler_kwargs()


@settings(max_examples=25, deadline=None)
@given(timestep=st.integers(0, 999), seed=st.integers(0, 2**31))
def test_v_and_epsilon_say_the_same(timestep: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    latents, noise = torch.randn(2, 1, 4, 2, 3, 3, generator=generator).double()
    t = torch.tensor([timestep])
    diffusion = Diffusion.from_config({**SCHEDULE, "prediction_type": "v_prediction"})
    noisy, v = diffusion.add_noise(latents, noise, t), diffusion.target(latents, noise, t)
    signal, spread = diffusion.signal_and_noise(t, latents)
    torch.testing.assert_close(signal * noisy - spread * v, latents, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(spread * noisy + signal * v, noise, rtol=1e-6, atol=1e-6)
    epsilon = Diffusion.from_config(SCHEDULE)
    torch.testing.assert_close(diffusion.clean(noisy, v, t), latents, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(epsilon.clean(noisy, noise, t), latents, rtol=1e-6, atol=1e-6)


def test_linear_schedule_ends_where_the_reference_ends() -> None:
    assert Diffusion.from_config(SCHEDULE).alphas_cumprod[-1].item() == pytest.approx(0.001579, abs=1e-6)


def test_an_unknown_prediction_type_is_refused() -> None:
    with pytest.raises(ConfigError, match="'sample' is unknown"):
        Diffusion.from_config({**SCHEDULE, "prediction_type": "sample"})


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_every_sampler_finds_the_truth_of_a_perfect_denoiser(name: str, prediction_type: str) -> None:
    """A model that knows the clean latents leads every sampler to them."""
    sampler = make_sampler(name, SCHEDULE, prediction_type)
    diffusion = Diffusion.from_config({**SCHEDULE, "prediction_type": prediction_type})
    truth = torch.linspace(-1, 1, 16).view(1, 1, 1, 4, 4)
    sampler.set_timesteps(20)
    latents = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0)) * sampler.init_noise_sigma
    for timestep in sampler.timesteps:
        scaled = sampler.scale_model_input(latents, timestep)
        t = timestep.long().view(1)
        signal, spread = diffusion.signal_and_noise(t, truth)
        noise = (scaled - signal * truth) / spread
        told = diffusion.target(truth, noise, t)
        takes = "generator" in inspect.signature(sampler.step).parameters
        extra = {"generator": torch.Generator().manual_seed(1)} if takes else {}
        latents = sampler.step(told, timestep, latents, **extra).prev_sample
    torch.testing.assert_close(latents, truth, atol=0.12, rtol=0)


def test_an_unknown_sampler_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'euler'"):
        make_sampler("eular", SCHEDULE, "epsilon")


def test_a_schedule_may_say_more_than_a_sampler_knows() -> None:
    assert make_sampler("euler", {**SCHEDULE, "clip_sample": True}, "epsilon").config.get("clip_sample") is None
    assert make_sampler("ddim", SCHEDULE, "epsilon", timestep_spacing="linspace").config.timestep_spacing == "linspace"
