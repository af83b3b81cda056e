"""The job itself: models loaded, motion plugged in, noise taken away step by step, frames decoded into the writers."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from stillmotion.animate import record
from stillmotion.animate.clip import Clip
from stillmotion.animate.config import AnimateConfig
from stillmotion.animate.events import Decoding, Event, Finished, Loaded, Started, StepDone
from stillmotion.animate.outputs import Outputs
from stillmotion.animate.plan import Plan, make_plan
from stillmotion.animate.session import Models, Session
from stillmotion.devices import device_name
from stillmotion.errors import Cancelled, ConfigError, StillmotionError
from stillmotion.sampling import Denoiser, Guidance, make_sampler, sample
from stillmotion.seeding import frame_noise
from stillmotion.shapes import fold_frames

Cancel = Callable[[], bool]
_CHUNK_PIXELS = 512 * 512  # what the VAE decodes at once by default


def animate(
    config: AnimateConfig,
    *,
    progress: Callable[[Event], None] | None = None,
    cancel: Cancel | None = None,
    session: Session | None = None,
) -> Clip:
    """Make one clip and return it; with `config.output_dir` it is also written into a run folder there.

    Args:
        config: What to make. `num_clips` must be 1; `animation` makes several.
        progress: Called with every event.
        cancel: Asked between steps and between chunks of frames; when it says True the job ends with `Cancelled`.
        session: Keeps the models loaded for the next job; without it they are let go.

    Raises:
        ConfigError: A value is out of range or names nothing that exists.
        FileError: A file is missing, damaged, not what its field asks for, or the output cannot be written.
        MismatchError: Two parts do not fit.
        Cancelled: `cancel` said so. Nothing half-written is left.
    """
    if config.num_clips != 1:
        raise ConfigError(f"num_clips: sm.animate makes one clip, got {config.num_clips}; use sm.animation for several")
    for event in animation(config, cancel=cancel, session=session):
        if progress is not None:
            progress(event)
        if isinstance(event, Finished):
            return event.clip
    raise StillmotionError("The job ended without a clip.")


def animation(
    config: AnimateConfig,
    *,
    cancel: Cancel | None = None,
    session: Session | None = None,
    keep_frames: bool = True,
) -> Iterator[Event]:
    """Check the job now, and return the iterator that does it: `Started`, `Loaded`, then every clip's events.

    Clip i of `num_clips` has the seed `seed + i` and is the clip that this seed gives alone. Each is whole, in its own
    run folder, when its `Finished` comes; ending the iteration early keeps those and leaves nothing of the one at work.
    `keep_frames=False` keeps no pixels in memory, for long clips that are written. Arguments and errors as `animate`.
    """
    return run(make_plan(config), cancel=cancel, session=session, keep_frames=keep_frames)


def run(
    plan: Plan, *, cancel: Cancel | None = None, session: Session | None = None, keep_frames: bool = True
) -> Iterator[Event]:
    """Do what is planned; see `animation`."""
    if not keep_frames and plan.config.output_dir is None:
        raise ConfigError("output_dir: expected a folder, since the frames are not to be kept in memory")
    return _events(plan, cancel or _never, session, keep_frames)


def _events(plan: Plan, cancel: Cancel, session: Session | None, keep_frames: bool) -> Iterator[Event]:
    device = plan.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield Started(
        config=plan.config,
        device=str(device),
        device_name=device_name(device),
        dtype=str(plan.config.dtype),
        notes=plan.notes,
    )
    clock = Clock()
    with clock.phase("load"):
        models = (session or Session()).load(plan)
    config = models.settle(plan.config)
    with models.assembled(config.num_frames):
        with clock.phase("text"):
            texts = models.t2i.encode_text([config.negative_prompt, config.prompt])
        yield Loaded(config=config, seconds=clock.seconds["load"], notes=_text_notes(models, config))
        for index in range(config.num_clips):
            work = ClipWork(plan, config, models, index, clock.fork(), keep_frames)
            yield from work.events(texts, cancel)


class ClipWork:
    """One clip of a job."""

    def __init__(
        self, plan: Plan, config: AnimateConfig, models: Models, index: int, clock: "Clock", keep_frames: bool
    ) -> None:
        self.plan, self.models, self.index, self.clock, self.keep_frames = plan, models, index, clock, keep_frames
        # The clip's own config: replaying it gives this clip alone.
        self.config = config.replace(seed=(config.seed or 0) + index, num_clips=1)
        self.num_clips = config.num_clips

    def events(self, texts: Float[Tensor, "2 tokens features"], cancel: Cancel) -> Iterator[Event]:
        """Sample, decode and write the clip; `texts` are the negative prompt's and the prompt's features."""
        latents = yield from self._sample(texts, cancel)
        begun = record.begin(self.config, self.models.files, self.plan.device, self.models.t2i.report)
        with Outputs(self.config, begun, keep_frames=self.keep_frames) as outputs:
            chunk = self.config.decode_chunk or max(1, _CHUNK_PIXELS // (self._height * self._width))
            for start in range(0, self.config.num_frames, chunk):
                if cancel():
                    raise Cancelled(f"Stopped after {start} of {self.config.num_frames} frames were decoded.")
                with self.clock.phase("decode"):
                    frames = self._decode(latents[:, :, start : start + chunk])
                with self.clock.phase("write"):
                    outputs.add(frames)
                done = min(start + chunk, self.config.num_frames)
                yield Decoding(clip=self.index, num_clips=self.num_clips, frames=done, total=self.config.num_frames)
            with self.clock.phase("write"):
                written = outputs.close_clips()
            whole = record.end(begun, seconds=self.clock.seconds, device=self.plan.device, outputs=written)
            clip = outputs.finish(whole)
        yield Finished(clip=clip)

    @property
    def _height(self) -> int:
        return self.config.height or self.models.t2i.native_size

    @property
    def _width(self) -> int:
        return self.config.width or self.models.t2i.native_size

    def _sample(self, texts: Float[Tensor, "2 tokens features"], cancel: Cancel) -> Generator[Event, None, Tensor]:
        """Yield a `StepDone` per step; return the clean latents, in clip layout."""
        config, t2i, plan = self.config, self.models.t2i, self.plan
        schedule = self.models.motion.variant.noise_schedule.scheduler_kwargs()
        sampler = make_sampler(config.sampler, schedule, t2i.prediction_type)
        shape = (t2i.vae.config.latent_channels, self._height // t2i.scale, self._width // t2i.scale)
        seed = config.seed or 0
        latents = frame_noise(seed, range(config.num_frames), shape).to(plan.device, plan.dtype)
        steps = sample(
            Denoiser(t2i.unet),
            sampler,
            latents,
            Guidance(texts[1:], texts[:1], 7.5 if config.guidance_scale is None else config.guidance_scale),
            num_inference_steps=config.num_inference_steps,
            seed=seed,
            cancelled=cancel,
        )
        began = time.perf_counter()
        for step in steps:
            latents = step.latents
            if not bool(torch.isfinite(latents).all()):
                raise StillmotionError(
                    f"Step {step.index} of {step.total} gave numbers that are not finite in {config.dtype}; try "
                    f"dtype float32, a lower guidance_scale than {config.guidance_scale}, or another sampler."
                )
            seconds = time.perf_counter() - began
            self.clock.add("sample", seconds)
            yield StepDone(
                clip=self.index, num_clips=self.num_clips, step=step.index, total=step.total, seconds=seconds
            )
            began = time.perf_counter()
        return latents

    def _decode(
        self, latents: Float[Tensor, "1 channels frames rows columns"]
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """Return the frames; half precision that overflows in the VAE is decoded again in float32."""
        t2i, images = self.models.t2i, fold_frames(latents)
        pixels, dtype = t2i.decode(images), t2i.vae.dtype
        if not bool(torch.isfinite(pixels).all()) and dtype is not torch.float32:
            try:
                nn.Module.to(t2i.vae, torch.float32)  # diffusers' own `to` warns of every cast
                pixels = t2i.decode(images)
            finally:
                nn.Module.to(t2i.vae, dtype)  # a later clip must not depend on this one
        if not bool(torch.isfinite(pixels).all()):
            raise StillmotionError("The VAE gave pixels that are not finite; try another VAE or dtype float32.")
        bytes_ = ((pixels.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return bytes_.permute(0, 2, 3, 1).contiguous().cpu().numpy()


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


def _text_notes(models: Models, config: AnimateConfig) -> tuple[str, ...]:
    notes = []
    for name, text in (("prompt", config.prompt), ("negative_prompt", config.negative_prompt)):
        if cut := models.t2i.tokens_cut(text):
            notes.append(f"{name}: its last {cut} tokens are over the text encoder's length and have no effect")
    return (*notes, *models.t2i.report)


def _never() -> bool:
    return False
