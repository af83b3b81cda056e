"""Where the loop begins: at pure noise, or part of the way with clean latents noised so far (SDEdit, Meng et al. 2021)."""

import torch
from diffusers import SchedulerMixin
from jaxtyping import Float
from torch import Tensor

from stillmotion.errors import ConfigError

Latents = Float[Tensor, "batch channels frames height width"]


def steps_taken(num_inference_steps: int, denoise: float) -> int:
    """Return how many of the steps are left where `denoise`, their share, is; raise `ConfigError` where it is none.

    As in diffusers: rounded down.
    """
    # 0.29 of 100 steps are 28.999999999999996 in binary, and meant to be 29.
    taken = min(int(num_inference_steps * denoise + 1e-6), num_inference_steps)
    if taken < 1:
        raise ConfigError(
            f"denoise: {denoise:g} of {num_inference_steps} steps is less than one step; expected at least "
            f"{1 / num_inference_steps:.2g}, or more num_inference_steps"
        )
    return taken


def set_steps(sampler: SchedulerMixin, num_inference_steps: int, device: torch.device | str | None = None) -> None:
    """Set the timesteps of a sampler; raise `ConfigError` where it cannot take so many steps."""
    try:
        sampler.set_timesteps(num_inference_steps, device=device)
    except ValueError as error:
        raise ConfigError(f"num_inference_steps: {num_inference_steps} is not for this sampler: {error}") from error


def timesteps_left(sampler: SchedulerMixin, num_inference_steps: int, denoise: float) -> Tensor:
    """Return the timesteps of the last `denoise` of the steps, as the sampler has them set."""
    return _from(sampler.timesteps, num_inference_steps - steps_taken(num_inference_steps, denoise))


def noised(
    sampler: SchedulerMixin, clean: Latents, noise: Latents, *, steps: int, denoise: float
) -> tuple[Latents, Tensor]:
    """Return `clean` with the noise of the step where the last `denoise` of the steps begins, and their timesteps.

    The sampler's timesteps must be set. It computes what diffusers' image-to-image pipelines do.
    """
    begin = steps - steps_taken(steps, denoise)
    if hasattr(sampler, "set_begin_index"):
        sampler.set_begin_index(begin)
    left = timesteps_left(sampler, steps, denoise)
    return sampler.add_noise(clean, noise, left[:1].repeat(len(noise))), left


def _from(timesteps: Tensor, begin: int) -> Tensor:
    """Return the timesteps from the `begin`-th on, the second one twice where the sampler has it so (PNDM's warm-up)."""
    distinct = torch.tensor(list(dict.fromkeys(timesteps.tolist())), dtype=timesteps.dtype, device=timesteps.device)
    left = distinct[begin:]
    return left if len(distinct) == len(timesteps) else torch.cat([left[:1], left[1:2], left[1:]])
