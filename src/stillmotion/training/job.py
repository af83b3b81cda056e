"""A training as a job: config in, an iterator of what happens out, trained files at the end."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
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
from stillmotion.t2i import T2I, load_t2i
from stillmotion.toyworld import weights_folder
from stillmotion.training.clips import TrainingClips, texts_of
from stillmotion.training.config import Dialect, TrainConfig
from stillmotion.training.denoising import StageObjective, Validation, Weighing
from stillmotion.training.events import Prepared, Sampled, Saved, Trained, TrainEvent, Validated
from stillmotion.training.footage import footage_of, recipe_of
from stillmotion.training.guard import Guard, MotionDied
from stillmotion.training.loop import LoopConfig, run
from stillmotion.training.reading import Reader
from stillmotion.training.run_folder import Metrics, check_same, claimed
from stillmotion.training.samples import keep_sample, sample_clips
from stillmotion.training.sharding import gathered
from stillmotion.training.stages import FINE_TUNING_RATE, STAGES, Stage
from stillmotion.training.state import checkpoints
from stillmotion.training.subject import Subject, assembled, motion_source
from stillmotion.training.world import World, joined

NUM_VALIDATION_CLIPS = 4
_DTYPES = {"float16": torch.float16, "float32": torch.float32}


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
    device = choose_device(_own_device(config.device))
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
        config = _sized(config, t2i)
        with assembled(config, stage, t2i, device, world) as subject:
            yield from Work(config, stage, folder, subject, world).events(stop)


def _sized(config: TrainConfig, t2i: T2I) -> TrainConfig:
    """Return the config with the size settled: a cache's own, the toyworld's own, else 256 pixels."""
    if config.width is None and LatentCache.is_one(config.data):
        header, _ = read_header(Path(config.data).expanduser())
        return config.replace(width=header.width, height=config.height or header.height, buckets=bool(header.buckets))
    width = config.width or (t2i.native_size if config.model == "toyworld" else 256)
    return config.replace(width=width, height=config.height or width)


class Work:
    """One run."""

    def __init__(self, config: TrainConfig, stage: Stage, folder: Path, subject: Subject, world: World) -> None:
        self._config, self._stage, self._folder, self._subject = config, stage, folder, subject
        self._world, slots = world, world.slots(config.batch_size)
        t2i = subject.t2i
        self._dialects = _dialects(config, subject.module)
        footage, recipe, self._notes = footage_of(config, t2i, recipe_of(config, stage))
        count = len(footage.clips)
        self._clips = TrainingClips(
            footage,
            recipe,
            seed=config.seed,
            scaling_factor=t2i.vae.config.scaling_factor,
            caption=config.caption,
            caption_dropout=config.caption_dropout,
            quarantine=Quarantine(count, None if world.rank else folder / "broken-clips.jsonl"),
        )
        if not self._clips.usable:
            raise ConfigError(
                f"data: all {count} clips of {config.data} are shorter than {config.num_frames} frames at stride "
                f"{config.frame_stride}; choose fewer frames, a smaller stride, or short_clips: loop or stretch"
            )
        self._held = self._clips.held(NUM_VALIDATION_CLIPS)
        self._first = max((step for step, _ in checkpoints(folder)), default=0)
        steps = range(self._first, self._num_steps)
        indices = (step * config.batch_size + slot for step in steps for slot in slots)
        self._reader = Reader(self._clips, config.num_workers, indices)
        self._objective = StageObjective(
            module=subject.module,
            denoiser=Denoiser(t2i.unet),
            diffusion=Diffusion.from_config(subject.schedule),
            fetch=self._reader.fetch,
            texts=texts_of(t2i),
            seed=config.seed,
            batch_size=config.batch_size,
            micro_batch_size=config.micro_batch_size or config.batch_size,
            weighing=Weighing(
                snr_gamma=config.snr_gamma,
                noise_offset=config.noise_offset,
                appearance_debias=config.appearance_debias,
            ),
            autocast=partial(_autocast, t2i.device.type, config.precision),
            world=world,
        )

    def events(self, stop: Callable[[], bool]) -> Iterator[TrainEvent]:
        """Yield what happens until the run is over, or stopped."""
        objective, last = self._objective, self._first
        yield Prepared(
            config=self._config,
            num_clips=len(self._clips.usable),
            num_skipped=self._clips.num_skipped,
            num_parameters=sum(p.numel() for p in objective.module.parameters() if p.requires_grad),
            first_step=self._first,
            notes=self._notes,
        )
        with self._reader, Metrics(self._folder, self._first, self._world) as metrics:
            guard = self._guard()
            if guard is not None and self._first == 0:
                yield self._told(guard.before, 0, metrics)
            for done in run(objective, self._loop(), self._folder, stop=stop, world=self._world):
                last = done.step
                told = Trained(
                    step=done.step,
                    num_steps=done.num_steps,
                    loss=done.loss,
                    seconds=done.seconds,
                    waiting=self._reader.take_waited(),
                )
                metrics.write({"step": done.step, "loss": done.loss, "seconds": done.seconds, **done.figures})
                yield told
                if done.step % self._config.validate_every == 0 or done.step == self._num_steps:
                    yield from self._validated(done.step, metrics, guard)
                yield from self._sampled(done.step)
        if last >= self._num_steps:
            yield Saved(files=self._write(last))

    @property
    def _num_steps(self) -> int:
        assert self._config.num_steps is not None  # settled
        return self._config.num_steps

    def _guard(self) -> Guard | None:
        """Return what ends a fine-tuning that unlearns motion; None where none is asked for, or nothing moves yet.

        A run that goes on measures again what it began with: here the state is not loaded yet.
        """
        config = self._config
        wanted = config.motion_guard and config.motion is not None and config.stage == "motion_module"
        if not wanted or not (self._world.leads or self._world.sharded):
            return None
        return Guard(self._objective.validate(self._held), config.motion_guard)

    def _validated(self, step: int, metrics: Metrics, guard: Guard | None) -> Iterator[TrainEvent]:
        """Validate in the first process, or in all of a sharded world; end the run in all where the guard says so."""
        died = ""
        if self._world.leads or self._world.sharded:
            found = self._objective.validate(self._held)
            died = guard.verdict(found) if guard is not None else ""
            yield self._told(found, step, metrics)
        if self._world.any(bool(died)):
            raise MotionDied(
                f"Step {step}: {died or 'the motion of the validation clips is lost'}. The checkpoints in {self._folder} are "
                f"kept. Lower the learning rate, give more clips or fewer steps; motion_guard=0 lets it go on."
            )

    def _told(self, found: Validation, step: int, metrics: Metrics) -> Validated:
        """Note what a validation found, and return it as an event."""
        metrics.write({"step": step, "validation_loss": found.loss, "validation_motion": found.motion})
        return Validated(step=step, loss=found.loss, motion=found.motion)

    def _sampled(self, step: int) -> Iterator[TrainEvent]:
        """Make sample clips where it is time for them."""
        config, world = self._config, self._world
        if not config.sample_every or step % config.sample_every or not (world.leads or world.sharded):
            return
        prompts = config.sample_prompts or tuple(clip.caption for clip in self._held[:2])
        folder = self._folder / "samples" / f"step-{step:06}"
        for index, pictures in enumerate(sample_clips(self._subject, config, prompts, self._objective.autocast)):
            if world.leads:
                yield Sampled(step=step, path=keep_sample(pictures, folder, str(index)))

    def _loop(self) -> LoopConfig:
        config = self._config
        assert config.learning_rate is not None
        assert config.ema_decay is not None
        return LoopConfig(
            num_steps=self._num_steps,
            learning_rate=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            warmup_steps=config.warmup_steps,
            decay_from=config.decay_from,
            max_grad_norm=config.max_grad_norm,
            ema_decay=config.ema_decay,
            scale_loss=config.precision == "float16",
            checkpoint_every=config.checkpoint_every,
        )

    def _write(self, step: int) -> tuple[Path, ...]:
        """Write what was trained, in every dialect; return the files and folders."""
        config = self._config
        trained = _cast(self._subject.trained(), _DTYPES[config.save_dtype])
        if not self._world.leads:
            return ()
        metadata = {"training": json.dumps({"step": step, "parents": self._parents(), "config": config.to_dict()})}
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
        files = {f"model/{part}/{file.name}": file for file, part in self._subject.t2i.files.items()}
        if source is not None and source.is_file():
            files["motion"] = source
        if config.domain_adapter and self._stage.moves:
            files["domain_adapter"] = Path(config.domain_adapter.path).expanduser()
        return {name: sha256(file) for name, file in files.items()}


def _own_device(name: str) -> str:
    """Return the device of this process where `torchrun` has started several on one machine."""
    own = os.environ.get("LOCAL_RANK")
    return f"cuda:{own}" if own and name in ("auto", "cuda") and torch.cuda.is_available() else name


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


def _autocast(device: str, precision: str) -> AbstractContextManager[object]:
    return nullcontext() if precision == "float32" else torch.autocast(device, getattr(torch, precision))
