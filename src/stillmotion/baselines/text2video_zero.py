"""Text2Video-Zero: an image model moved without any training (Khachatryan et al. 2023, arXiv 2303.13439, Algorithm 1).

The first frame is denoised alone down to timestep t0. Its latents there, shifted for every other frame and noised back up
to t1, are where those begin; from t1 all frames are denoised together, each attending to the first one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler
from jaxtyping import Float
from torch import Tensor

from stillmotion.baselines.attending import attending, first_frame
from stillmotion.baselines.shifting import shifted
from stillmotion.errors import Cancelled, ConfigError
from stillmotion.sampling import Denoiser, Guidance, Moment, Step
from stillmotion.shapes import fold_frames, unfold_frames

Latents = Float[Tensor, "1 channels frames rows columns"]


@dataclass(frozen=True, kw_only=True)
class Zero:
    """What Text2Video-Zero is told beside the image model."""

    motion_field: tuple[float, float] = (12.0, 12.0)
    """How far each frame looks further right and down than the one before, in 512ths of the picture."""
    t0: int = 44
    """How many steps are left after the one from which the first frame is shifted."""
    t1: int = 47
    """How many steps are left after the one from which all frames are denoised together; at least t0."""
    frames_together: int | None = None
    """How many frames a forward takes, the first one included in each; None for all. The clip is the same for any."""

    def check(self, num_inference_steps: int) -> None:
        """Raise `ConfigError` unless 0 <= t0 <= t1 < the steps."""
        if not 0 <= self.t0 <= self.t1 < num_inference_steps:
            raise ConfigError(
                f"t0, t1: expected 0 <= t0 <= t1 < num_inference_steps, which is {num_inference_steps}, got t0 {self.t0} and "
                f"t1 {self.t1}"
            )


def text2video_zero(
    denoiser: Denoiser,
    sampler: DDIMScheduler,
    noise: Latents,
    guidance: Guidance,
    zero: Zero,
    *,
    num_inference_steps: int,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[Step]:
    """Yield every step; the latents of the first ones are the first frame's alone, those of the last one are the clean clip.

    Args:
        denoiser: Over an image model with nothing plugged in.
        sampler: DDIM, which keeps no memory of earlier steps.
        noise: Unit noise: what the first frame begins with, and what the others are noised with from t0 to t1.
        guidance: The prompt and how strongly it is followed.
        zero: The motion, and when it is put in.
        num_inference_steps: From pure noise to a clean picture.
        cancelled: Asked before each step.

    Raises:
        ConfigError: t0 or t1 do not go with the steps.
        Cancelled: `cancelled()` said so.
    """
    zero.check(num_inference_steps)
    sampler.set_timesteps(num_inference_steps, device=noise.device)
    times = sampler.timesteps
    to_t1, to_t0 = len(times) - zero.t1 - 1, len(times) - zero.t0 - 1
    total = to_t0 + len(times) - to_t1
    frames = noise.shape[2]
    place = 0

    def step(latents: Latents, at: int) -> Step:
        nonlocal place
        if cancelled():
            raise Cancelled(f"Stopped after {place} of {total} steps.")
        predicted = _predicted(denoiser, latents, times[at], guidance, zero.frames_together, at / len(times))
        stepped = sampler.step(fold_frames(predicted), times[at], fold_frames(latents), eta=0.0).prev_sample
        place += 1
        return Step(index=place, total=total, latents=unfold_frames(stepped, latents.shape[2]))

    first = at_t1 = noise[:, :, :1] * sampler.init_noise_sigma
    for at in range(to_t0):
        done = step(first, at)
        first = done.latents
        at_t1 = first if at < to_t1 else at_t1
        yield done
    moved = shifted(first[0, :, 0], range(1, frames), zero.motion_field)[None]
    kept = _kept(sampler, int(times[to_t0]), int(times[to_t1]))
    latents = torch.cat([at_t1, kept.sqrt() * moved + (1 - kept).sqrt() * noise[:, :, 1:]], dim=2)
    for at in range(to_t1, len(times)):
        done = step(latents, at)
        latents = done.latents
        yield done


def _kept(sampler: DDIMScheduler, t0: int, t1: int) -> Float[Tensor, ""]:
    """Return the share of the power at t0 that is left at t1, the product of α from t0 up to but not t1, as the reference."""
    return sampler.alphas[t0:t1].prod()


@torch.no_grad()
def _predicted(
    denoiser: Denoiser, latents: Latents, timestep: Tensor, guidance: Guidance, together: int | None, progress: float
) -> Latents:
    """Return the guided prediction, each frame attending to the first, which is in every forward."""
    frames = latents.shape[2]
    parts = []
    others = max((together or frames) - 1, 1)
    for start in range(1, max(frames, 2), others):
        shown = [0, *range(start, min(start + others, frames))]
        with attending(denoiser.unet, first_frame(len(shown))):
            moment = Moment(frames=shown, progress=progress)
            part = denoiser.guided(latents[:, :, shown], timestep, guidance, moment=moment)
        parts.append(part if start == 1 else part[:, :, 1:])
    return torch.cat(parts, dim=2)
