"""The sampling loop: noise in, a step at a time out. It prints nothing, and stops where it is asked to."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from diffusers import SchedulerMixin
from jaxtyping import Float
from torch import Tensor

from stillmotion.errors import Cancelled
from stillmotion.sampling.denoiser import Denoiser, Guidance
from stillmotion.seeding import generator

Latents = Float[Tensor, "batch channels frames height width"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step done; the last one's latents are clean."""

    index: int  # from 1
    total: int
    latents: Latents


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    sampler: SchedulerMixin,
    noise: Latents,
    guidance: Guidance,
    *,
    num_inference_steps: int,
    seed: int = 0,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[Step]:
    """Denoise unit noise towards what `guidance` says; yield every step.

    Samplers that add noise of their own take it from (seed, step). Raises `Cancelled` when `cancelled()` says so.
    """
    sampler.set_timesteps(num_inference_steps, device=noise.device)
    latents = noise * sampler.init_noise_sigma
    stochastic = "generator" in inspect.signature(sampler.step).parameters
    for index, timestep in enumerate(sampler.timesteps):
        if cancelled():
            raise Cancelled(f"Stopped after {index} of {num_inference_steps} steps.")
        scaled = sampler.scale_model_input(latents, timestep)
        predicted = denoiser.guided(scaled, timestep, guidance)
        chance = {"generator": generator(seed, "sampler", index)} if stochastic else {}
        latents = sampler.step(predicted, timestep, latents, **chance).prev_sample
        yield Step(index=index + 1, total=len(sampler.timesteps), latents=latents)
