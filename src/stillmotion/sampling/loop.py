"""The sampling loop: noise in, a step at a time out. It prints nothing, and stops where it is asked to."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import SchedulerMixin
from jaxtyping import Float
from torch import Tensor

from stillmotion.errors import Cancelled, ConfigError
from stillmotion.sampling.control import Moment
from stillmotion.sampling.denoiser import Denoiser, Guidance
from stillmotion.seeding import generator
from stillmotion.shapes import fold_frames, unfold_frames

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
    seed: int | Sequence[int] = 0,
    eta: float = 0.0,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[Step]:
    """Denoise unit noise towards what `guidance` says; yield every step.

    Args:
        denoiser: What tells the noise.
        sampler: How it is taken away; see `make_sampler`.
        noise: What to begin with, drawn per frame by `seeding.frame_noise`.
        guidance: The prompt and how strongly it is followed.
        num_inference_steps: How many steps are taken.
        seed: Where samplers that add noise of their own take it from, as a function of (seed, step, frame); one for all
            clips, or one per clip.
        eta: How much noise DDIM adds back in each step, 0 (none) to 1 (Song et al. 2020, Eq. 16).
        cancelled: Asked before each step.

    Raises:
        ConfigError: The sampler cannot take so many steps.
        Cancelled: `cancelled()` said so.
    """
    try:
        sampler.set_timesteps(num_inference_steps, device=noise.device)
    except ValueError as error:
        raise ConfigError(f"num_inference_steps: {num_inference_steps} is not for this sampler: {error}") from error
    latents = noise * sampler.init_noise_sigma
    seeds = [seed] * len(noise) if isinstance(seed, int) else list(seed)
    takes = inspect.signature(sampler.step).parameters
    options: dict[str, Any] = {"eta": eta} if "eta" in takes else {}
    for index, timestep in enumerate(sampler.timesteps):
        if cancelled():
            raise Cancelled(f"Stopped after {index} of {len(sampler.timesteps)} steps.")
        moment = Moment(frames=range(noise.shape[2]), progress=index / len(sampler.timesteps))
        scaled = sampler.scale_model_input(latents, timestep)
        predicted = denoiser.guided(scaled, timestep, guidance, moment=moment)
        if "generator" in takes:
            options["generator"] = _generators(seeds, index, noise.shape[2])
        stepped = sampler.step(fold_frames(predicted), timestep, fold_frames(latents), **options).prev_sample
        latents = unfold_frames(stepped, noise.shape[2])
        yield Step(index=index + 1, total=len(sampler.timesteps), latents=latents)


def _generators(seeds: Sequence[int], step: int, num_frames: int) -> list[torch.Generator]:
    """Return one generator per frame of every clip, so that a frame's noise depends on no other frame."""
    return [generator(seed, f"sampler step {step}", frame) for seed in seeds for frame in range(num_frames)]
