"""DDIM inversion: the noise from which DDIM draws a given clip again (Song et al. 2020, §4.3; Tune-A-Video §3.3)."""

import inspect
from collections.abc import Callable, Iterator

import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from jaxtyping import Float
from torch import Tensor

from stillmotion.errors import Cancelled
from stillmotion.sampling import Denoiser, Step
from stillmotion.shapes import fold_frames, unfold_frames


def inverted(
    denoiser: Denoiser,
    sampler: DDIMScheduler,
    latents: Float[Tensor, "batch channels frames rows columns"],
    text: Float[Tensor, "batch tokens features"],
    *,
    num_inference_steps: int,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[Step]:
    """Yield every step from the clean latents to their noise, which is what the last one holds.

    Args:
        denoiser: What tells the noise, as it will when it is taken away again.
        sampler: The DDIM that will take it away.
        latents: The clean clip.
        text: Features of what it is seen as, one set of rows per clip: in Tune-A-Video of the empty text.
        num_inference_steps: As many as it will be sampled with.
        cancelled: Asked before each step; when it says True the inversion ends with `Cancelled`.
    """
    known = inspect.signature(DDIMInverseScheduler.__init__).parameters
    inverse = DDIMInverseScheduler(**{name: value for name, value in sampler.config.items() if name in known})
    inverse.set_timesteps(num_inference_steps, device=latents.device)
    total = len(inverse.timesteps)
    for index, timestep in enumerate(inverse.timesteps):
        if cancelled():
            raise Cancelled(f"Stopped after {index} of {total} steps of the inversion.")
        with torch.no_grad():
            predicted = denoiser(latents, timestep, text)
        stepped = inverse.step(fold_frames(predicted), timestep, fold_frames(latents)).prev_sample
        latents = unfold_frames(stepped, latents.shape[2])
        yield Step(index=index + 1, total=total, latents=latents)
