"""Tune-A-Video's tuning: one clip, one caption, on the project's own training loop."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stillmotion.baselines.config import TuneAVideoConfig
from stillmotion.baselines.one_clip import OneClip
from stillmotion.config import AdapterFile, EmbeddingFile
from stillmotion.data import fit, probe, read_frames
from stillmotion.errors import Cancelled, ConfigError
from stillmotion.sampling import Denoiser, Diffusion
from stillmotion.seeding import derive
from stillmotion.t2i import T2I
from stillmotion.training.loop import ALONE, Part, StepDone, run
from stillmotion.training.objectives import DenoisingObjective, LatentBatch
from stillmotion.training.run_config import RunConfig
from stillmotion.training.run_folder import Metrics, check_same, claimed
from stillmotion.training.work import autocast_of, first_step, loop_config


@dataclass(frozen=True, kw_only=True)
class TuningConfig(RunConfig):
    """A tuning as a run in a folder: what a new clip of the same tuning must agree with."""

    video: Path
    """The clip that it is tuned on."""
    caption: str
    """What that clip shows."""
    num_frames: int
    """How many frames of it."""
    frame_stride: int
    """Source frames from one of them to the next."""
    spatial_norm: str
    """What the image model's norms pool over."""
    clip_skip: int
    """Which of the text encoder's layers is read."""
    loras: tuple[AdapterFile, ...]
    """LoRAs that are in the image model while it is tuned."""
    embeddings: tuple[EmbeddingFile, ...]
    """Textual inversions that its words may have."""
    custom_diffusion: tuple[AdapterFile, ...]
    """Custom Diffusion weights that are in it."""

    @classmethod
    def of(cls, config: TuneAVideoConfig, folder: Path) -> "TuningConfig":
        """Return the tuning of a job, with the paper's values where the job says none; its size and dtype are settled."""
        assert config.dtype != "auto"
        return cls(
            output_dir=folder,
            model=config.model,
            vae=config.vae,
            width=config.width,
            height=config.height,
            num_steps=config.num_tuning_steps,
            batch_size=1,
            learning_rate=config.learning_rate,
            weight_decay=0.01,
            warmup_steps=0,
            decay_from=1.0,
            ema_decay=0.0,
            caption_dropout=0.0,
            precision=config.dtype,
            gradient_checkpointing=config.gradient_checkpointing,
            seed=config.tuning_seed,
            device=config.device,
            video=config.video.expanduser().absolute(),
            caption=config.video_prompt,
            num_frames=config.num_frames,
            frame_stride=config.frame_stride,
            spatial_norm=config.spatial_norm,
            clip_skip=config.clip_skip,
            loras=config.loras,
            embeddings=config.embeddings,
            custom_diffusion=config.custom_diffusion,
        )


def check_video(config: TuneAVideoConfig) -> None:
    """Raise `FileError` where the tuning clip cannot be read, `ConfigError` where it is too short."""
    needed = (config.num_frames - 1) * config.frame_stride + 1
    found = probe(config.video.expanduser()).num_frames
    if found < needed:
        raise ConfigError(
            f"num_frames: {config.num_frames} frames at frame_stride {config.frame_stride} need {needed}, but {config.video} "
            f"has {found}; choose fewer frames or a smaller stride"
        )


@torch.no_grad()
def clip_latents(config: TuneAVideoConfig, t2i: T2I) -> Float[Tensor, "1 channels frames rows columns"]:
    """Return the tuning clip's latents, from its beginning, cropped to the job's size, which is settled.

    They are the posterior's means; the reference draws from it, which for the VAE of Stable Diffusion is next to the same.
    """
    assert config.width is not None
    assert config.height is not None
    taken = islice(read_frames(config.video.expanduser()), 0, None, config.frame_stride)
    latents = [
        t2i.encode_images(fit(np.stack([frame]), config.width, config.height))
        for frame in islice(taken, config.num_frames)
    ]
    return torch.stack(latents, dim=2)


@dataclass
class OneClipObjective:
    """The noise of one clip, predicted under one caption: a timestep for the clip, noise for each frame (its Eq. 2)."""

    inner: DenoisingObjective
    autocast: Callable[[], AbstractContextManager[object]]

    @property
    def module(self) -> torch.nn.Module:
        """Return what is tuned."""
        return self.inner.module

    def losses(self, step: int) -> Iterator[Part]:
        """Yield the mean squared error of the step's noise."""
        with self.autocast():
            parts = list(self.inner.losses(step))
        yield from parts


def new_one_clip(t2i: T2I, seed: int) -> OneClip:
    """Return what is to be tuned, as it is before."""
    return OneClip(t2i.unet, lambda path: derive(seed, f"attention over frames {path}"))


def check_tuning(config: TuneAVideoConfig) -> None:
    """Raise `ConfigError` where the tuning's folder holds another tuning, or one of more steps, `FileError` other files."""
    if config.tuning_dir is None:
        return
    done = first_step(config.tuning_dir)
    if done > config.num_tuning_steps:
        raise ConfigError(
            f"num_tuning_steps: {config.tuning_dir} holds a tuning of {done} steps; ask for as many, or choose a new folder"
        )
    if config.width is not None and config.height is not None:
        check_same(TuningConfig.of(config, config.tuning_dir))


@contextmanager
def _folder(config: TuneAVideoConfig) -> Iterator[tuple[TuningConfig, Path]]:
    with ExitStack() as stack:
        kept = (
            config.tuning_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stillmotion-"))) / "run"
        )
        tuning = TuningConfig.of(config, kept)
        yield tuning, stack.enter_context(claimed(tuning, ALONE))


def tuned(
    config: TuneAVideoConfig,
    t2i: T2I,
    one_clip: OneClip,
    latents: Float[Tensor, "1 channels frames rows columns"],
    schedule: dict[str, object],
    *,
    stop: Callable[[], bool],
) -> Iterator[StepDone]:
    """Tune `one_clip` in place, going on from what the folder holds; yield every step.

    Raises `Cancelled` where `stop` says True: the state is kept in `tuning_dir`, if there is one.
    """
    text = t2i.encode_text([config.video_prompt], clip_skip=config.clip_skip)
    batch = LatentBatch(latents.detach().float(), text.detach())
    objective = OneClipObjective(
        inner=DenoisingObjective(
            module=one_clip,
            denoiser=Denoiser(t2i.unet),
            diffusion=Diffusion.from_config(schedule),
            batch=lambda _: batch,
            seed=config.tuning_seed,
        ),
        autocast=autocast_of(t2i, config.dtype),
    )
    with ExitStack() as stack:
        tuning, folder = stack.enter_context(_folder(config))
        first = first_step(folder)
        metrics = stack.enter_context(Metrics(folder, first, ALONE))
        if config.gradient_checkpointing:
            t2i.unet.enable_gradient_checkpointing()
            stack.callback(t2i.unet.disable_gradient_checkpointing)
        stack.enter_context(one_clip.at_work(config.num_frames, config.spatial_norm))
        last = first
        for done in run(objective, loop_config(tuning), folder, stop=stop, note=metrics.note):
            last = done.step
            yield done
    if last < config.num_tuning_steps:
        kept = (
            f" The state is kept in {config.tuning_dir}; the same job goes on from there." if config.tuning_dir else ""
        )
        raise Cancelled(f"Stopped after {last} of {config.num_tuning_steps} steps of the tuning.{kept}")
