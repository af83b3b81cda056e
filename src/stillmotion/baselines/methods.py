"""The two methods as a job sees them: made ready for the image model once, then the steps of any clip."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from stillmotion.animate.clip_work import Clock
from stillmotion.animate.events import Cancel
from stillmotion.animate.record import ModelFile
from stillmotion.baselines.config import BaselineConfig, Text2VideoZeroConfig, TuneAVideoConfig
from stillmotion.baselines.events import Inverted, Tuned
from stillmotion.baselines.inversion import inverted
from stillmotion.baselines.one_clip import OneClip
from stillmotion.baselines.text2video_zero import Zero, text2video_zero
from stillmotion.baselines.tuning import clip_latents, new_one_clip, tuned
from stillmotion.checkpoints.files import sha256
from stillmotion.sampling import Denoiser, Guidance, Step, make_sampler, sample
from stillmotion.seeding import frame_noise
from stillmotion.t2i import T2I


@runtime_checkable
class Method(Protocol):
    """A way to make clips with an image model."""

    def prepared(self, clock: Clock, cancel: Cancel) -> Iterator[Tuned | Inverted]:
        """Do what all clips of the job share; yield as it goes on."""
        ...

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Put into the image model what stays there for all clips; afterwards it is what it was."""
        ...

    def steps(self, seed: int, guidance: Guidance, cancel: Cancel) -> Iterator[Step]:
        """Yield the steps of the clip of a seed."""
        ...

    def files(self) -> tuple[ModelFile, ...]:
        """Return what it reads beside the image model's files."""
        ...


def method_of(config: BaselineConfig, t2i: T2I) -> Method:
    """Return the method of a job, whose config is settled in everything."""
    if isinstance(config, TuneAVideoConfig):
        return TuneAVideo(config, t2i)
    assert isinstance(config, Text2VideoZeroConfig)
    return Text2VideoZero(config, t2i)


class Text2VideoZero:
    """Text2Video-Zero, which needs nothing made ready."""

    def __init__(self, config: Text2VideoZeroConfig, t2i: T2I) -> None:
        self._config, self._t2i = config, t2i

    def prepared(self, clock: Clock, cancel: Cancel) -> Iterator[Tuned | Inverted]:  # noqa: ARG002  # as every method
        """Yield nothing."""
        yield from ()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Leave the image model alone: what is changed in it is changed for each forward."""
        yield

    def steps(self, seed: int, guidance: Guidance, cancel: Cancel) -> Iterator[Step]:
        """Yield the steps of the clip of a seed."""
        config, t2i = self._config, self._t2i
        t0, t1 = config.times
        return text2video_zero(
            Denoiser(t2i.unet),
            _sampler(config, t2i),
            _noise(config, t2i, seed),
            guidance,
            Zero(
                motion_field=(config.motion_field_x, config.motion_field_y),
                t0=t0,
                t1=t1,
                frames_together=config.frames_together,
            ),
            num_inference_steps=config.num_inference_steps,
            cancelled=cancel,
        )

    def files(self) -> tuple[ModelFile, ...]:
        """Return none."""
        return ()


class TuneAVideo:
    """Tune-A-Video: tuned on its clip, whose noise its clips begin with."""

    def __init__(self, config: TuneAVideoConfig, t2i: T2I) -> None:
        self._config, self._t2i = config, t2i
        self._one_clip: OneClip = new_one_clip(t2i, config.tuning_seed)
        self._start: Tensor | None = None

    def prepared(self, clock: Clock, cancel: Cancel) -> Iterator[Tuned | Inverted]:
        """Tune, then find the noise of the tuning clip where clips are to begin with it."""
        config, t2i = self._config, self._t2i
        with clock.phase("inputs"):
            latents = clip_latents(config, t2i)
        schedule = dict(t2i.scheduler_config)
        with clock.phase("tune"):
            for done in tuned(config, t2i, self._one_clip, latents, schedule, stop=cancel):
                yield Tuned(step=done.step, num_steps=done.num_steps, loss=done.loss, seconds=done.seconds)
        self._one_clip.to(t2i.unet.dtype).requires_grad_(requires_grad=False)
        if config.start == "noise":
            return
        empty = t2i.encode_text([""], clip_skip=config.clip_skip)
        with clock.phase("invert"), self.at_work():
            for step in inverted(
                Denoiser(t2i.unet),
                _sampler(config, t2i),
                latents.float(),
                empty,
                num_inference_steps=config.num_inference_steps,
                cancelled=cancel,
            ):
                self._start = step.latents
                yield Inverted(step=step.index, total=step.total)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Put the tuned part into the image model."""
        with self._one_clip.at_work(self._config.num_frames, self._config.spatial_norm):
            yield

    def steps(self, seed: int, guidance: Guidance, cancel: Cancel) -> Iterator[Step]:
        """Yield the steps of the clip of a seed, which says nothing where it begins with the tuning clip's noise."""
        config, t2i = self._config, self._t2i
        return sample(
            Denoiser(t2i.unet),
            _sampler(config, t2i),
            _noise(config, t2i, seed) if self._start is None else self._start,
            guidance,
            num_inference_steps=config.num_inference_steps,
            seed=seed,
            cancelled=cancel,
        )

    def files(self) -> tuple[ModelFile, ...]:
        """Return the tuning clip."""
        path = self._config.video.expanduser()
        told = sha256(path) if path.is_file() else ""
        return (ModelFile(role="video", name=path.name, path=str(self._config.video), sha256=told, kind="a video"),)


def _sampler(config: BaselineConfig, t2i: T2I) -> Any:
    """Return DDIM on the image model's own noise schedule: no motion module brings another."""
    return make_sampler(config.sampler, t2i.scheduler_config, t2i.prediction_type)


def _noise(config: BaselineConfig, t2i: T2I, seed: int) -> Tensor:
    """Return the noise that `animate` begins with, frame by frame, for a clip of this seed and size."""
    assert config.width is not None
    assert config.height is not None
    shape = (int(t2i.vae.config.latent_channels), config.height // t2i.scale, config.width // t2i.scale)
    return frame_noise(seed, range(config.num_frames), shape).to(torch.device(t2i.device))
