"""A training step: ours on cached latents, and a plain loop that encodes anew at each step, as the reference trainer does."""

import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import DDIMScheduler

from stillmotion.bench.cached_loop import NOISE_SCHEDULE, cached_steps, fill_cache, footage, pixels_of
from stillmotion.bench.clock import seconds_of, threads
from stillmotion.bench.memory import StepMemory, step_memory
from stillmotion.bench.models import make_motion, make_t2i
from stillmotion.bench.plain_loop import PlainLoop, PlainStep
from stillmotion.bench.shape import TrainShape
from stillmotion.motion import plug


@dataclass(frozen=True, kw_only=True)
class TrainTiming:
    """Optimizer steps of a motion module, ours and theirs."""

    shape: TrainShape
    num_threads: int
    num_parameters: int
    """Numbers that are trained."""
    ours: tuple[float, ...]
    """Seconds of each step of our loop, on the latent cache."""
    theirs: tuple[float, ...]
    """Seconds of each step of the plain loop, in turn with ours."""
    encoding: tuple[float, ...]
    """Seconds of those that VAE and text encoder took."""
    cache_seconds: float
    """What filling the cache took, once."""
    cached_frames: int
    """Frames that are in it."""
    plain_memory: StepMemory | None = None
    """What our step holds without gradient checkpointing; None where it was not measured."""
    checkpointed_memory: StepMemory | None = None
    """The same with gradient checkpointing."""

    @property
    def ratio(self) -> float:
        """Return how many times more clips ours trains on in the same time: the median over the pairs."""
        return statistics.median(b / a for a, b in zip(self.ours, self.theirs, strict=True))

    @property
    def ratio_of_encoding(self) -> float:
        """Return how many times more clips the plain loop would train on if VAE and text encoder took no time."""
        return statistics.median(b / (b - e) for b, e in zip(self.theirs, self.encoding, strict=True))

    def clips_per_second(self, seconds: tuple[float, ...]) -> float:
        """Return the rate of steps that took so long: of their median."""
        return self.shape.batch_size / statistics.median(seconds)


def bench_train(
    shape: TrainShape, *, pairs: int = 5, num_threads: int | None = None, memory: bool = True
) -> TrainTiming:
    """Time optimizer steps of a motion module on the CPU; measure the memory of a MotionLoRA's with and without
    gradient checkpointing.

    Both loops train the same motion module, plugged into the same UNet, on the same clips, in turn. Decoding is charged
    to neither: the plain loop finds its pixels decoded. Memory is measured in processes that import the program's own
    main module anew, so a script that asks for it does its work under `if __name__ == "__main__":`.

    Raises:
        MismatchError: The clip has more frames than the motion module has positions.
        StillmotionError: Memory cannot be measured here, or there is too little of it.
    """
    with threads(num_threads) as count, tempfile.TemporaryDirectory(prefix="stillmotion-bench-") as folder:
        cache = Path(folder) / "latents"
        started = time.perf_counter()
        cached_frames = fill_cache(shape, cache)
        cache_seconds = time.perf_counter() - started
        # Before our own models are made: a large shape leaves no room for two processes' weights.
        measured = [step_memory(shape, cache, count, checkpointing=way) for way in (False, True)] if memory else []
        timed, num_parameters = _timed(shape, pairs, cache, Path(folder) / "run")
        return TrainTiming(
            shape=shape,
            num_threads=count,
            num_parameters=num_parameters,
            ours=tuple(a for a, _ in timed),
            theirs=tuple(b.seconds for _, b in timed),
            encoding=tuple(b.encoding for _, b in timed),
            cache_seconds=cache_seconds,
            cached_frames=cached_frames,
            plain_memory=measured[0] if measured else None,
            checkpointed_memory=measured[1] if measured else None,
        )


def _timed(shape: TrainShape, pairs: int, cache: Path, folder: Path) -> tuple[list[tuple[float, PlainStep]], int]:
    """Return each pair of steps, ours by its seconds, and how many numbers they train."""
    t2i, motion, drawn = make_t2i(shape.size), make_motion(shape.size), footage(shape)
    with plug(t2i.unet, motion, shape.num_frames):
        captions = [drawn.item(clip).caption for clip in range(len(drawn))]
        schedule = DDIMScheduler(**NOISE_SCHEDULE)
        theirs = PlainLoop(t2i, motion, schedule, pixels_of(shape), captions, getattr(torch, shape.dtype))
        ours = cached_steps(shape, t2i, motion, cache, folder, pairs + 1)
        # The first pair makes the optimizers' moments, and remembers the captions' features.
        timed = [(seconds_of(partial(next, ours)), theirs.step()) for _ in range(pairs + 1)]
    return timed[1:], sum(p.numel() for p in motion.parameters())
