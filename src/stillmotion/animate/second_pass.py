"""A clip in one pass, or in two: the second enlarges what the first made, noises it part of the way and draws it anew.

Steps count on over both passes, so a step of an interrupted clip says in which of them it is.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stillmotion.animate.clip_sampling import FramesInView, make_clip_sampler, sample_clip
from stillmotion.animate.clip_work import decoded, frames_at_once
from stillmotion.animate.config import STEPS, AnimateConfig
from stillmotion.animate.events import Cancel
from stillmotion.animate.session import Models
from stillmotion.animate.steering import Steered, encode
from stillmotion.animate.upscaling import larger
from stillmotion.errors import Cancelled, MismatchError
from stillmotion.sampling import Guidance, Step
from stillmotion.sampling.start import set_steps, timesteps_left
from stillmotion.t2i import T2I

Latents = Float[Tensor, "1 channels frames rows columns"]
Larger = Float[Tensor, "1 channels frames larger_rows larger_columns"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Told:
    """What a pass is told beside the models, at its size."""

    steered: Steered
    """Controls, and where the frames begin."""
    guidance: Guidance
    """What they are drawn towards."""


def sample_whole(
    config: AnimateConfig,
    models: Models,
    first: Told,
    second: Callable[[], Told],
    view: FramesInView,
    cancel: Cancel,
    after: Step | None = None,
) -> Iterator[Step]:
    """Yield every step of one clip, in both passes where `config.upscale` asks for two, and every window of it.

    `second` is asked for what the second pass is told when it begins. The clip begins, or goes on `after` a step of
    either pass that was yielded before: with that one, once more.

    Raises:
        MismatchError: `after` is a step of another clip.
        Cancelled: `cancel` said so, between steps, or between the frames that are enlarged.
    """
    if config.upscale == 1:
        yield from sample_clip(config, models, first.steered, first.guidance, view, cancel, after)
        return
    job = larger(config)
    more = _num_steps(job, models)
    before = None if after is None else after.total - more  # steps of the first pass
    if after is None or before is None or after.index <= before:
        begun, count, latents = None if after is None else replace(after, total=after.total - more), 0, None
        for step in sample_clip(config, models, first.steered, first.guidance, view, cancel, begun):
            count, latents = step.total, step.latents
            yield replace(step, total=count + more)
        assert latents is not None
        start, stood = enlarged(latents, job, models.t2i, cancel), None
    else:
        # What the pass began with no longer matters: the sampler and the latents stand after a step of it.
        count, stood = before, replace(after, index=after.index - before, total=more)
        start = after.latents
        _check_size(start, job, models.t2i)
    told = second()
    steered = replace(told.steered, start=start)
    for step in sample_clip(job, models, steered, told.guidance, view, cancel, stood):
        yield replace(step, index=count + step.index, total=count + more)


def enlarged(latents: Latents, job: AnimateConfig, t2i: T2I, cancel: Cancel) -> Larger:
    """Return the latents of a clip at the size of `job`, its pixels resized (bicubic), a chunk at a time, on the CPU."""
    size, frames, parts = (job.height or 0, job.width or 0), latents.shape[2], []
    chunk = frames_at_once(job)
    for at in range(0, frames, chunk):
        if cancel():
            raise Cancelled(f"Stopped between the passes, after {at} of {frames} frames were enlarged.")
        pixels = decoded(t2i, latents[:, :, at : at + chunk])
        resized = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(-1, 1)
        parts.append(encode(t2i, resized).cpu())
    return torch.cat(parts).transpose(0, 1).unsqueeze(0)


def _num_steps(job: AnimateConfig, models: Models) -> int:
    """Return how many steps the second pass has."""
    steps, sampler = job.num_inference_steps or STEPS, make_clip_sampler(job, models)
    set_steps(sampler, steps)
    return len(timesteps_left(sampler, steps, job.denoise or 1.0))


def _check_size(latents: Latents, job: AnimateConfig, t2i: T2I) -> None:
    size = ((job.height or 0) // t2i.scale, (job.width or 0) // t2i.scale)
    if latents.shape[-2:] != size:
        raise MismatchError(
            f"A step of the second pass has latents of {tuple(latents.shape[-2:])}, but this clip's have {size}. Make the "
            f"clip anew."
        )
