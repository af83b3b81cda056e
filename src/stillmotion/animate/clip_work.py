"""One clip of a job, whatever moves it: its steps in, frames decoded into the writers, the clip and its record out."""

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from stillmotion.animate import record
from stillmotion.animate.config import AnimateConfig
from stillmotion.animate.events import Cancel, Decoding, Event, Finished, StepDone, WindowDone
from stillmotion.animate.outputs import Outputs
from stillmotion.animate.record import ModelFile
from stillmotion.animate.upscaling import larger
from stillmotion.data import Interpolator
from stillmotion.errors import Cancelled, StillmotionError
from stillmotion.sampling import Step
from stillmotion.shapes import fold_frames
from stillmotion.t2i import T2I

_CHUNK_PIXELS = 512 * 512  # what the VAE takes at once by default


class Clock:
    """Adds up the seconds of each phase of a job."""

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds = dict(seconds or {})

    def fork(self) -> "Clock":
        """Return a clock that goes on from here by itself: a clip's, after what all clips share."""
        return Clock(self.seconds)

    def add(self, phase: str, seconds: float) -> None:
        """Add seconds to a phase."""
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what runs inside to the phase."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - began)


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipWork:
    """What a clip is made with, and what is said of it."""

    config: AnimateConfig
    """The clip's own job, settled in everything: replaying it gives this clip alone."""
    t2i: T2I
    """Whose VAE decodes it."""
    files: tuple[ModelFile, ...]
    """Every file that was read for it."""
    device: torch.device
    clock: Clock
    """Its own."""
    index: int
    """Which clip of the job it is, from 0."""
    num_clips: int
    """Of how many."""
    keep_frames: bool
    """Whether the pixels stay in memory."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """What its record says otherwise, or beside."""

    def events(self, steps: Iterator[Step], cancel: Cancel) -> Iterator[Event]:
        """Sample, decode and write the clip."""
        latents = yield from self._sample(steps)
        moved_by = self.record.get("baseline")
        begun = {**record.begin(self.config, self.files, self.device, self.t2i.report, moved_by), **self.record}
        with Outputs(self.config, begun, keep_frames=self.keep_frames) as outputs:
            chunk = frames_at_once(larger(self.config))
            between = Interpolator(self.config.interpolate, closed=self.config.loop == "closed")
            for start in range(0, self.config.num_frames, chunk):
                if cancel():
                    raise Cancelled(f"Stopped after {start} of {self.config.num_frames} frames were decoded.")
                with self.clock.phase("decode"):
                    frames = self._decode(latents[:, :, start : start + chunk])
                with self._between():
                    frames = between.add(frames)
                with self.clock.phase("write"):
                    outputs.add(frames)
                done = min(start + chunk, self.config.num_frames)
                yield Decoding(clip=self.index, num_clips=self.num_clips, frames=done, total=self.config.num_frames)
            with self._between():
                left = between.finish()
            with self.clock.phase("write"):
                outputs.add(left)
                written = outputs.close_clips()
            whole = record.end(begun, seconds=self.clock.seconds, device=self.device, outputs=written)
            clip = outputs.finish(whole)
        yield Finished(clip=clip)

    def _sample(self, steps: Iterator[Step]) -> Generator[Event, None, Tensor]:
        """Yield a `StepDone` per step, and a `WindowDone` for each window before; return the clean latents."""
        config, began, latents = self.config, time.perf_counter(), None
        for step in steps:
            place = {"clip": self.index, "num_clips": self.num_clips, "step": step.index, "total": step.total}
            if not step.is_whole:
                yield WindowDone(**place, window=step.window, windows=step.windows)
                continue
            latents = step.latents
            if not bool(torch.isfinite(latents).all()):
                raise StillmotionError(
                    f"Step {step.index} of {step.total} gave numbers that are not finite in {config.dtype}; try "
                    f"dtype float32, a lower guidance_scale than {config.guidance_scale}, or another sampler."
                )
            seconds = time.perf_counter() - began
            self.clock.add("sample", seconds)
            yield StepDone(**place, seconds=seconds)
            began = time.perf_counter()
        assert latents is not None
        return latents

    def _between(self) -> AbstractContextManager[None]:
        """Count the drawing of frames in between to its phase, where there are any."""
        return self.clock.phase("interpolate") if self.config.interpolate > 1 else nullcontext()

    def _decode(
        self, latents: Float[Tensor, "1 channels frames rows columns"]
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """Return the frames."""
        bytes_ = ((decoded(self.t2i, latents) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return bytes_.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def decoded(
    t2i: T2I, latents: Float[Tensor, "1 channels frames rows columns"]
) -> Float[Tensor, "frames 3 height width"]:
    """Return the frames in [-1, 1]; half precision that overflows in the VAE is decoded again in float32."""
    images = fold_frames(latents)
    pixels, dtype = t2i.decode(images), t2i.vae.dtype
    if not bool(torch.isfinite(pixels).all()) and dtype is not torch.float32:
        try:
            nn.Module.to(t2i.vae, torch.float32)  # diffusers' own `to` warns of every cast
            pixels = t2i.decode(images)
        finally:
            nn.Module.to(t2i.vae, dtype)  # a later clip must not depend on this one
    if not bool(torch.isfinite(pixels).all()):
        raise StillmotionError("The VAE gave pixels that are not finite; try another VAE or dtype float32.")
    return pixels.float()


def frames_at_once(config: AnimateConfig) -> int:
    """Return how many frames the VAE takes in one go; the config's size is settled."""
    return config.decode_chunk or max(1, _CHUNK_PIXELS // ((config.height or 1) * (config.width or 1)))
