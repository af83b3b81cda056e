"""A clip's latents, step by step: its noise, its windows, and what is plugged in told which frames are at hand."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from diffusers import SchedulerMixin
from jaxtyping import Float
from torch import Tensor

from stillmotion.animate.config import SAMPLER, STEPS, AnimateConfig
from stillmotion.animate.events import Cancel
from stillmotion.animate.script import along, context_of
from stillmotion.animate.session import Models
from stillmotion.animate.steering import Steered
from stillmotion.motion import NoiseSchedule, Plugged
from stillmotion.sampling import (
    Context,
    Course,
    Denoiser,
    Diffusion,
    Guidance,
    Step,
    clip_noise,
    low_pass,
    make_sampler,
    remix,
    sample,
)
from stillmotion.seeding import frame_noise

Latents = Float[Tensor, "1 channels frames rows columns"]


class FramesInView:
    """Which frames of a clip the plugged model sees at once, and how much each moves."""

    def __init__(self, config: AnimateConfig, plugged: Plugged) -> None:
        self._plugged, self._windows = plugged, context_of(config)
        self._inside, self._num_frames = config.context == "inside", config.num_frames
        plugged.motion_strength = along(config, config.motion_strength, "motion_strength")

    @property
    def context(self) -> Context | None:
        """Return the windows in which the clip is denoised; None where all of it is seen at once."""
        return None if self._inside else self._windows

    @property
    def is_long(self) -> bool:
        """Return whether the model sees a part of the clip at a time, so that its latents need not lie where it is."""
        return not self._inside and self._num_frames > self._windows.length

    def look(self, frames: Sequence[int], step: int) -> None:
        """Tell what is plugged in that these frames come next; within it, attention looks through the step's windows."""
        if self._inside:
            windows = self._windows.windows(self._num_frames, step)
            self._plugged.attend_within([(window.frames, window.weights) for window in windows])
        self._plugged.look(frames)


def sample_clip(
    config: AnimateConfig,
    models: Models,
    steered: Steered,
    guidance: Guidance,
    view: FramesInView,
    cancel: Cancel,
    after: Step | None = None,
) -> Iterator[Step]:
    """Yield every step of one clip, and every window of it; steps count on over FreeInit's passes.

    `config` is settled in everything. The latents of a clip in several windows stay on the CPU, in float32. The clip
    begins, or goes on `after` a step that was yielded before: with that one, once more.
    """
    t2i, seed = models.t2i, config.seed or 0
    width, height = config.width or t2i.native_size, config.height or t2i.native_size
    shape = (int(t2i.vae.config.latent_channels), height // t2i.scale, width // t2i.scale)
    schedule = _noise_schedule(config, models).scheduler_kwargs()
    first = clip_noise(seed, config.num_frames, shape, config.noise, context_of(config))
    if not view.is_long:
        first = first.to(t2i.device, t2i.unet.dtype)
    start = None if steered.start is None else steered.start.to(first)
    course = Course(start_from=start, denoise=config.denoise or 1.0, context=view.context, look=view.look)
    denoiser, latents = Denoiser(t2i.unet, steered.controls), first
    begin, stood = _pass_of(after, config.freeinit_passes)
    for turn in range(begin, config.freeinit_passes):
        anew = turn > begin  # of a pass that goes on, its noise does not matter any more
        noise = _again(config, latents, first, turn, Diffusion.from_config(schedule)) if anew else first
        course = replace(course, after=None if anew else stood)
        for step in sample(
            denoiser,
            make_clip_sampler(config, models),
            noise,
            guidance,
            num_inference_steps=config.num_inference_steps or STEPS,
            seed=seed,
            course=course,
            cancelled=cancel,
        ):
            latents = step.latents
            yield replace(step, index=turn * step.total + step.index, total=config.freeinit_passes * step.total)


def make_clip_sampler(config: AnimateConfig, models: Models) -> SchedulerMixin:
    """Return the sampler of a job, for the noise that its motion module knows."""
    schedule = _noise_schedule(config, models).scheduler_kwargs()
    return make_sampler(config.sampler or SAMPLER, schedule, models.t2i.prediction_type)


def _noise_schedule(config: AnimateConfig, models: Models) -> NoiseSchedule:
    """Return the motion module's own schedule, its curve another where the user says so."""
    own = models.motion.variant.noise_schedule
    return own if config.noise_schedule is None else replace(own, beta_schedule=config.noise_schedule)


def _pass_of(after: Step | None, passes: int) -> tuple[int, Step | None]:
    """Return in which of FreeInit's passes the step is, from 0, and the step as that pass counts."""
    if after is None:
        return 0, None
    each = max(after.total // passes, 1)
    turn = min((after.index - 1) // each, passes - 1)
    return turn, replace(after, index=after.index - turn * each, total=each)


def _again(config: AnimateConfig, clean: Latents, first: Latents, turn: int, diffusion: Diffusion) -> Latents:
    """Return the noise of FreeInit's next pass: the clip noised to the end by the first noise, its fast parts drawn anew."""
    last = torch.tensor([len(diffusion.alphas_cumprod) - 1])
    noised = diffusion.add_noise(clean.float().cpu(), first.float().cpu(), last)
    channels, frames, *size = noised.shape[1:]
    fresh = frame_noise(config.seed or 0, range(frames), (channels, size[0], size[1]), f"freeinit {turn}")
    kept = low_pass(noised.shape[2:], config.freeinit_filter, config.freeinit_spatial, config.freeinit_temporal)
    return remix(noised, fresh, kept).to(first)
