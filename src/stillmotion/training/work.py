"""A run, ready to begin, as data, and what happens while it goes on: the same for every stage and every method."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from stillmotion.checkpoints.files import sha256
from stillmotion.t2i import T2I
from stillmotion.training.clips import TrainingClip, TrainingClips
from stillmotion.training.denoising import StageObjective, Validation
from stillmotion.training.events import Prepared, Sampled, Saved, Trained, TrainEvent, Validated
from stillmotion.training.guard import Guard, MotionDied
from stillmotion.training.loop import LoopConfig, run
from stillmotion.training.reading import Reader
from stillmotion.training.run_config import RunConfig
from stillmotion.training.run_folder import VALIDATION_LOSS, Metrics
from stillmotion.training.state import checkpoints
from stillmotion.training.world import World

DTYPES = {"float16": torch.float16, "float32": torch.float32}
"""What trained files may be held in."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One run, ready to begin."""

    config: RunConfig
    """With every value settled."""
    folder: Path
    world: World
    clips: TrainingClips
    """What it is trained on."""
    held: Sequence[TrainingClip]
    """Some of them, always the same, that validations look at."""
    reader: Reader
    objective: StageObjective
    notes: tuple[str, ...]
    """What the user should know of the clips."""
    samples: Callable[[Path], Iterator[Path]]
    """Makes samples of what is learnt so far, in a folder; yields the pictures to look at. Every process may be asked."""
    write: Callable[[int], tuple[Path, ...]]
    """Writes what was trained, at a step; returns the files and folders."""
    motion_guard: float = 0.0
    """The share of motion that must be left; 0 where nothing is fine-tuned that moves."""

    def events(self, stop: Callable[[], bool]) -> Iterator[TrainEvent]:
        """Yield what happens until the run is over, or stopped."""
        objective, first = self.objective, first_step(self.folder)
        last, num_steps = first, self._num_steps
        yield Prepared(
            config=self.config,
            num_clips=len(self.clips.usable),
            num_skipped=self.clips.num_skipped,
            num_parameters=sum(p.numel() for p in objective.module.parameters() if p.requires_grad),
            first_step=first,
            notes=self.notes,
        )
        with self.reader, Metrics(self.folder, first, self.world) as metrics:
            guard = self._guard()
            if guard is not None and first == 0:
                yield self._told(guard.before, 0, metrics)
            steps = run(
                objective,
                loop_config(self.config),
                self.folder,
                stop=stop,
                note=metrics.note,
                world=self.world,
            )
            if first and self._is_validated(first) and self.world.any(metrics.lacks_validation):
                yield from self._validated(first, metrics, guard)  # killed after its checkpoint, before this
            for done in steps:
                last = done.step
                told = Trained(
                    step=done.step,
                    num_steps=done.num_steps,
                    loss=done.loss,
                    seconds=done.seconds,
                    waiting=self.reader.take_waited(),
                )
                yield told
                if self._is_validated(done.step):
                    yield from self._validated(done.step, metrics, guard)
                yield from self._sampled(done.step)
        if last >= num_steps:
            yield Saved(files=self.write(last))

    @property
    def _num_steps(self) -> int:
        assert self.config.num_steps is not None  # settled
        return self.config.num_steps

    @property
    def _looks(self) -> bool:
        """Return whether this process validates and samples: the first does, and every one that holds a part only."""
        return self.world.leads or self.world.sharded

    def _guard(self) -> Guard | None:
        """Return what ends a fine-tuning that unlearns motion; None where none is asked for, or nothing moves yet.

        A run that goes on measures again what it began with: here the state is not loaded yet.
        """
        if not self.motion_guard or not self._looks:
            return None
        return Guard(self.objective.validate(self.held), self.motion_guard)

    def _is_validated(self, step: int) -> bool:
        return step % self.config.validate_every == 0 or step == self._num_steps

    def _validated(self, step: int, metrics: Metrics, guard: Guard | None) -> Iterator[TrainEvent]:
        """Validate in the first process, or in all of a sharded world; end the run in all where the guard says so."""
        died = ""
        if self._looks:
            found = self.objective.validate(self.held)
            died = guard.verdict(found) if guard is not None else ""
            yield self._told(found, step, metrics)
        if self.world.any(bool(died)):
            raise MotionDied(
                f"Step {step}: {died or 'the motion of the validation clips is lost'}. The checkpoints in {self.folder} are "
                f"kept. Lower the learning rate, give more clips or fewer steps; motion_guard=0 lets it go on."
            )

    def _told(self, found: Validation, step: int, metrics: Metrics) -> Validated:
        """Note what a validation found, and return it as an event."""
        metrics.write({"step": step, VALIDATION_LOSS: found.loss, "validation_motion": found.motion})
        return Validated(step=step, loss=found.loss, motion=found.motion)

    def _sampled(self, step: int) -> Iterator[TrainEvent]:
        """Make samples where it is time for them."""
        if self.config.sample_every and step % self.config.sample_every == 0 and self._looks:
            for path in self.samples(self.folder / "samples" / f"step-{step:06}"):
                yield Sampled(step=step, path=path)


def first_step(folder: Path) -> int:
    """Return the step that a run in the folder goes on from; 0 for a new one."""
    return max((step for step, _ in checkpoints(folder)), default=0)


def loop_config(config: RunConfig) -> LoopConfig:
    """Return what a settled config says to the loop."""
    assert config.num_steps is not None
    assert config.learning_rate is not None
    assert config.ema_decay is not None
    return LoopConfig(
        num_steps=config.num_steps,
        learning_rate=config.learning_rate,
        optimizer=config.optimizer,
        muon_rate=config.muon_rate,
        muon_decay=config.muon_decay,
        betas=config.betas,
        weight_decay=config.weight_decay,
        warmup_steps=config.warmup_steps,
        decay_from=config.decay_from,
        max_grad_norm=config.max_grad_norm,
        ema_decay=config.ema_decay,
        scale_loss=config.precision == "float16",
        checkpoint_every=config.checkpoint_every,
    )


def published(config: RunConfig) -> dict[str, Any]:
    """Return the config as trained files tell it, which people give away: of a whole path its last part alone.

    The folders before it hold the user's name, and mean nothing elsewhere; the run's own folder keeps all of it.
    """
    return {name: _nameless(value) for name, value in config.to_dict().items()}


def _nameless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nameless(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_nameless(inner) for inner in value]
    if isinstance(value, str) and (value.startswith("~") or Path(value).is_absolute()):
        return Path(value).name or value
    return value


def model_parents(t2i: T2I) -> dict[str, str]:
    """Return the sha256 of every file of the image model that is trained from."""
    return {f"model/{part}/{file.name}": sha256(file) for file, part in t2i.files.items()}


def autocast_of(t2i: T2I, precision: str) -> Callable[[], AbstractContextManager[object]]:
    """Return what a prediction is computed under."""
    return partial(_autocast, t2i.device.type, precision)


def own_device(name: str) -> str:
    """Return the device of this process where `torchrun` has started several on one machine."""
    own = os.environ.get("LOCAL_RANK")
    return f"cuda:{own}" if own and name in ("auto", "cuda") and torch.cuda.is_available() else name


def _autocast(device: str, precision: str) -> AbstractContextManager[object]:
    return nullcontext() if precision == "float32" else torch.autocast(device, getattr(torch, precision))
