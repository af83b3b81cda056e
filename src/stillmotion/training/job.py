"""A training as a job: config in, an iterator of what happens out, trained files at the end."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from torch import nn

from stillmotion.checkpoints import save
from stillmotion.checkpoints.files import sha256
from stillmotion.data import LatentCache, Quarantine
from stillmotion.data.cache_folder import read_header
from stillmotion.devices import choose_device
from stillmotion.errors import Cancelled, ConfigError
from stillmotion.motion import DomainAdapter, MotionLora, MotionModule
from stillmotion.sampling import Denoiser, Diffusion
from stillmotion.seeding import frame_noise
from stillmotion.t2i import T2I, load_t2i
from stillmotion.toyworld import weights_folder
from stillmotion.training.clips import TrainingClip, TrainingClips, texts_of
from stillmotion.training.config import Dialect, TrainConfig
from stillmotion.training.denoising import StageObjective, Weighing
from stillmotion.training.events import Saved, TrainEvent
from stillmotion.training.footage import footage_of, recipe_of
from stillmotion.training.reading import Reader
from stillmotion.training.run_folder import check_same, claimed
from stillmotion.training.samples import keep_sample, latent_shape, sample_clip
from stillmotion.training.sharding import gathered
from stillmotion.training.stages import FINE_TUNING_RATE, STAGES, Stage
from stillmotion.training.subject import Subject, assembled, motion_source
from stillmotion.training.work import DTYPES, Work, autocast_of, first_step, model_parents, own_device, published
from stillmotion.training.world import World, joined

NUM_VALIDATION_CLIPS = 4


def train(
    config: TrainConfig,
    *,
    progress: Callable[[TrainEvent], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> tuple[Path, ...]:
    """Train, and return the files that were written; a run in the same folder goes on exactly where it stood.

    Args:
        config: What to train, on what, and where.
        progress: Called with every event.
        stop: Asked after each step; when it says True the state is saved and the run ends with `Cancelled`.

    Raises:
        ConfigError: A value is out of range, or the folder holds a run of another config.
        FileError: A file is missing, damaged or not what its field asks for, too many clips are, or the folder is in use.
        MismatchError: Two parts do not fit.
        NonFiniteLoss: The loss is not a number; the checkpoints before it are kept.
        MotionDied: A fine-tuning unlearns how to move; see `motion_guard`.
        Cancelled: `stop` said so.
    """
    for event in training(config, stop=stop):
        if progress is not None:
            progress(event)
        if isinstance(event, Saved):
            return event.files
    raise Cancelled(f"Stopped. The state is kept in {config.output_dir}; start the same training again to go on.")


def training(config: TrainConfig, *, stop: Callable[[], bool] | None = None) -> Iterator[TrainEvent]:
    """Check the job now, and return the iterator that does it; it ends early, without `Saved`, where `stop` says True."""
    stage = STAGES[config.stage]
    source = motion_source(config)
    if config.stage == "motion_module" and source is not None and config.learning_rate is None:
        config = config.replace(learning_rate=FINE_TUNING_RATE)
    config = stage.settled(config)
    device = choose_device(own_device(config.device))
    if source is not None and not source.exists():
        raise ConfigError(f"motion: {source} does not exist; give the file of a motion module")
    if config.domain_adapter and not Path(config.domain_adapter.path).expanduser().exists():
        raise ConfigError(
            f"domain_adapter: {config.domain_adapter.path} does not exist; give the file of a domain adapter"
        )
    check_same(config)
    return _events(config, stage, device, stop or (lambda: False))


def _events(config: TrainConfig, stage: Stage, device: torch.device, stop: Callable[[], bool]) -> Iterator[TrainEvent]:
    with joined(device, sharded=config.strategy == "fsdp") as world, claimed(config, world) as folder:
        t2i = load_t2i(weights_folder() if config.model == "toyworld" else config.model, vae=config.vae)
        t2i.require_sd1("training")
        config = _sized(config, t2i)
        with assembled(config, stage, t2i, device, world) as subject:
            yield from StageRun(config, stage, folder, subject, world).work().events(stop)


def _sized(config: TrainConfig, t2i: T2I) -> TrainConfig:
    """Return the config with the size settled: a cache's own, the toyworld's own, else 256 pixels."""
    if config.width is None and LatentCache.is_one(config.data):
        header, _ = read_header(Path(config.data).expanduser())
        return config.replace(width=header.width, height=config.height or header.height, buckets=bool(header.buckets))
    width = config.width or (t2i.native_size if config.model == "toyworld" else 256)
    return config.replace(width=width, height=config.height or width)


class StageRun:
    """The run of one stage: its clips, its objective, and how its samples and files are made."""

    def __init__(self, config: TrainConfig, stage: Stage, folder: Path, subject: Subject, world: World) -> None:
        self._config, self._stage, self._folder, self._subject, self._world = config, stage, folder, subject, world
        self._dialects = _dialects(config, subject.module)
        self._autocast = autocast_of(subject.t2i, config.precision)

    def work(self) -> Work:
        """Return the run, ready to begin; raise `ConfigError` where all clips are too short."""
        config, world, t2i = self._config, self._world, self._subject.t2i
        slots = world.slots(config.batch_size)
        footage, recipe, notes = footage_of(config, t2i, recipe_of(config, self._stage))
        count = len(footage.clips)
        clips = TrainingClips(
            footage,
            recipe,
            seed=config.seed,
            scaling_factor=t2i.vae.config.scaling_factor,
            caption=config.caption,
            caption_dropout=config.caption_dropout,
            quarantine=Quarantine(count, None if world.rank else self._folder / "broken-clips.jsonl"),
        )
        if not clips.usable:
            raise ConfigError(
                f"data: all {count} clips of {config.data} are shorter than {config.num_frames} frames at stride "
                f"{config.frame_stride}; choose fewer frames, a smaller stride, or short_clips: loop or stretch"
            )
        held = clips.held(NUM_VALIDATION_CLIPS)
        assert config.num_steps is not None  # settled
        steps = range(first_step(self._folder), config.num_steps)
        reader = Reader(
            clips.__getitem__, config.num_workers, (step * config.batch_size + slot for step in steps for slot in slots)
        )
        guarded = config.motion is not None and config.stage == "motion_module"
        return Work(
            config=config,
            folder=self._folder,
            world=world,
            clips=clips,
            held=held,
            reader=reader,
            objective=self._objective(reader),
            notes=notes,
            samples=partial(self._samples, held),
            write=self._write,
            motion_guard=config.motion_guard if guarded else 0.0,
        )

    def _objective(self, reader: Reader) -> StageObjective:
        config, t2i = self._config, self._subject.t2i
        return StageObjective(
            module=self._subject.module,
            denoiser=Denoiser(t2i.unet),
            diffusion=Diffusion.from_config(self._subject.schedule),
            fetch=reader.fetch,
            texts=texts_of(t2i),
            seed=config.seed,
            batch_size=config.batch_size,
            micro_batch_size=config.micro_batch_size or config.batch_size,
            weighing=Weighing(
                snr_gamma=config.snr_gamma,
                timestep_bias=config.timestep_bias,
                noise_offset=config.noise_offset,
                appearance_debias=config.appearance_debias,
            ),
            autocast=self._autocast,
            world=self._world,
        )

    def _samples(self, held: Sequence[TrainingClip], folder: Path) -> Iterator[Path]:
        """Make a sample clip of every prompt."""
        config, subject = self._config, self._subject
        assert config.width is not None  # settled
        assert config.height is not None
        prompts = config.sample_prompts or tuple(clip.caption for clip in held[:2])
        shape = latent_shape(subject.t2i, config.width, config.height)
        frames = range(config.num_frames if self._stage.moves else 1)
        for index, prompt in enumerate(prompts):  # always from the same noise
            noise = frame_noise(config.seed + index, frames, shape)
            pictures = sample_clip(subject.t2i, subject.schedule, prompt, noise, self._autocast)
            if self._world.leads:
                yield keep_sample(pictures, folder, str(index))

    def _write(self, step: int) -> tuple[Path, ...]:
        """Write what was trained, in every dialect; return the files and folders."""
        config = self._config
        trained = _cast(self._subject.trained(), DTYPES[config.save_dtype])
        if not self._world.leads:
            return ()
        metadata = {"training": json.dumps({"step": step, "parents": self._parents(), "config": published(config)})}
        if config.licence:
            metadata["license"] = config.licence
        return tuple(
            save(
                trained,
                self._folder / f"{config.stage}{ending}",
                dialect=dialect,
                metadata=metadata,
                overwrite=True,
            )
            for dialect, ending in _endings(isinstance(trained, MotionModule)).items()
            if dialect in self._dialects
        )

    def _parents(self) -> dict[str, str]:
        """Return the sha256 of the files that it was trained from."""
        config, source = self._config, motion_source(self._config)
        files: dict[str, Path] = {}
        if source is not None and source.is_file():
            files["motion"] = source
        if config.domain_adapter and self._stage.moves:
            files["domain_adapter"] = Path(config.domain_adapter.path).expanduser()
        return model_parents(self._subject.t2i) | {name: sha256(file) for name, file in files.items()}


def _dialects(config: TrainConfig, trained: nn.Module) -> tuple[Dialect, ...]:
    """Return what the trained weights are written as; raise `ConfigError` where nobody reads them so."""
    readable: tuple[Dialect, ...] = get_args(Dialect)
    if isinstance(trained, MotionModule) and not trained.architecture.known_elsewhere:
        readable = ("stillmotion",)
    if unknown := [name for name in config.dialects or () if name not in readable]:
        raise ConfigError(f"dialects: {unknown[0]} knows no such motion module; expected {', '.join(readable)}")
    return config.dialects or readable


def _endings(is_module: bool) -> dict[Dialect, str]:
    """Return what a file is called after its stage, by dialect; diffusers reads motion modules from folders."""
    return {
        "stillmotion": ".safetensors",
        "original": ".ckpt",
        "diffusers": "-diffusers" if is_module else "-diffusers.safetensors",
        "comfyui": "-comfyui.safetensors",
    }


def _cast(
    trained: MotionModule | MotionLora | DomainAdapter, dtype: torch.dtype
) -> MotionModule | MotionLora | DomainAdapter:
    """Return a copy with its numbers held so."""
    if isinstance(trained, MotionModule):
        copy = MotionModule(trained.geometry, trained.variant)
        copy.load_state_dict(gathered(trained.state_dict(), keep=True))
        return copy.to(dtype)
    held = {path: (down.to(dtype), up.to(dtype)) for path, (down, up) in trained.weights.items()}
    return type(trained)(weights=held, name=trained.name)
