"""The sampling loop: noise in, a step at a time out. It prints nothing, and stops where it is asked to."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers import SchedulerMixin
from jaxtyping import Float
from torch import Tensor

from stillmotion.errors import Cancelled, MismatchError
from stillmotion.sampling.context import Context, Window
from stillmotion.sampling.denoiser import Denoiser, Guidance
from stillmotion.sampling.start import noised, set_steps
from stillmotion.sampling.windowed import Look, WindowedPrediction
from stillmotion.seeding import generator
from stillmotion.shapes import fold_frames, unfold_frames

Latents = Float[Tensor, "batch channels frames height width"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step done, or one window of it; the last step's latents are clean."""

    index: int  # from 1
    total: int
    latents: Latents
    """After the step; as they were before it while windows of it are left."""
    window: int = 1  # how many windows of the step are done
    windows: int = 1
    memory: Mapping[str, Any] = field(default_factory=dict)
    """What the sampler remembers after a whole step, by attribute: numbers, tensors and lists of them."""

    @property
    def is_whole(self) -> bool:
        """Return whether the step is done, and not a window of it alone."""
        return self.window == self.windows


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a clip is sampled, where that is not the plain way: all frames at once, from pure noise."""

    eta: float = 0.0
    """How much noise DDIM adds back in each step, 0 (none) to 1 (Song et al. 2020, Eq. 16)."""
    start_from: Latents | None = None
    """Clean latents to begin with in the place of pure noise: what is drawn anew."""
    denoise: float = 1.0
    """The share of the steps that is taken from there, the last ones; the smaller, the nearer to them it stays."""
    context: Context | None = None
    """The windows in which a long clip is seen, whose latents may lie on the CPU."""
    look: Look | None = None
    """Told before each prediction which frames of the clip it is for, and in which step (from 0)."""
    after: Step | None = None
    """A step that was done before, of the same course: the loop goes on after it as if it had never stopped."""


PLAIN = Course()


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    sampler: SchedulerMixin,
    noise: Latents,
    guidance: Guidance,
    *,
    num_inference_steps: int,
    seed: int | Sequence[int] = 0,
    course: Course = PLAIN,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[Step]:
    """Denoise unit noise towards what `guidance` says; yield every step, and with windows every window of it.

    A loop that goes on yields the step where it stands first, once more.

    Args:
        denoiser: What tells the noise.
        sampler: How it is taken away; see `make_sampler`.
        noise: What to begin with, drawn per frame by `seeding.frame_noise`.
        guidance: The prompt and how strongly it is followed.
        num_inference_steps: How many steps are taken.
        seed: Where samplers that add noise of their own take it from, by step and frame; one for all clips, or one each.
        course: How, where it is not the plain way.
        cancelled: Asked before each step and each window.

    Raises:
        ConfigError: The sampler cannot take so many steps, or `course.denoise` leaves none.
        MismatchError: `course.after` is a step of another course.
        Cancelled: `cancelled()` said so.
    """
    latents, timesteps = _begun(sampler, noise, num_inference_steps, course)
    fixed, begin, frames = dict(vars(sampler)), 0, noise.shape[2]
    if course.after is not None:
        begin, latents = course.after.index, _go_on(sampler, course.after, latents, len(timesteps))
        yield replace(course.after, latents=latents)
    everything = Window(tuple(range(frames)), (1.0,) * frames)
    seeds = [seed] * len(noise) if isinstance(seed, int) else list(seed)
    takes = inspect.signature(sampler.step).parameters
    options: dict[str, Any] = {"eta": course.eta} if "eta" in takes else {}
    for index, timestep in enumerate(timesteps[begin:], start=begin):
        windows = course.context.windows(frames, index) if course.context else (everything,)
        prediction = WindowedPrediction(denoiser, windows, course.look)
        scaled = sampler.scale_model_input(latents, timestep)
        steps = prediction.steps(scaled, timestep, guidance, progress=index / len(timesteps), step=index)
        for _ in windows:
            if cancelled():
                raise Cancelled(f"Stopped after {index} of {len(timesteps)} steps.")
            done = next(steps)
            if done < len(windows):
                yield Step(index=index + 1, total=len(timesteps), latents=latents, window=done, windows=len(windows))
        assert prediction.value is not None
        if "generator" in takes:
            options["generator"] = _generators(seeds, index, frames)
        stepped = sampler.step(fold_frames(prediction.value), timestep, fold_frames(latents), **options).prev_sample
        latents, whole = unfold_frames(stepped.contiguous(), frames), {"window": len(windows), "windows": len(windows)}
        yield Step(index=index + 1, total=len(timesteps), latents=latents, **whole, memory=_remembered(sampler, fixed))


def _begun(sampler: SchedulerMixin, noise: Latents, num_inference_steps: int, course: Course) -> tuple[Latents, Tensor]:
    """Set the sampler's steps; return the latents before the first of them, and their timesteps."""
    set_steps(sampler, num_inference_steps, noise.device)
    if course.start_from is None:
        return noise * sampler.init_noise_sigma, sampler.timesteps
    return noised(sampler, course.start_from, noise, steps=num_inference_steps, denoise=course.denoise)


def _remembered(sampler: SchedulerMixin, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a sampler is no longer as it was when its steps were set; lists, which it fills in place, always."""
    return {
        name: list(value) if isinstance(value, list) else value
        for name, value in vars(sampler).items()
        if isinstance(value, list) or value is not fixed.get(name)
    }


def _go_on(sampler: SchedulerMixin, after: Step, noise: Latents, total: int) -> Latents:
    """Bring the sampler to where it stood after a step, and return the latents of then, where `noise` lies."""
    if (after.total, after.latents.shape) != (total, noise.shape) or not 0 < after.index <= total:
        raise MismatchError(
            f"Step {after.index} of {after.total} with latents {tuple(after.latents.shape)} is of another clip: this one has "
            f"{total} steps and latents {tuple(noise.shape)}. Make the clip anew."
        )

    def here(value: Any) -> Any:
        return value.to(noise.device) if isinstance(value, Tensor) else value

    for name, value in after.memory.items():
        setattr(sampler, name, [here(one) for one in value] if isinstance(value, list) else here(value))
    return after.latents.to(noise.device)


def _generators(seeds: Sequence[int], step: int, num_frames: int) -> list[torch.Generator]:
    """Return one generator per frame of every clip, so that a frame's noise depends on no other frame."""
    return [generator(seed, f"sampler step {step}", frame) for seed in seeds for frame in range(num_frames)]
