"""Long clips of the toyworld against short ones: peak memory, time per frame, and how the motion breaks at window borders.

Each is made in a process of its own, as the command makes it: latents of all frames are kept, the UNet sees one window of
them at a time, and decoded frames go to the writers as they come. So the latents are what grows with the clip.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from jaxtyping import UInt8

from stillmotion.allocator import keep_freed_memory
from stillmotion.animate import AnimateConfig, Finished, Session, make_plan, run
from stillmotion.animate.script import context_of
from stillmotion.bench.resident import peak
from stillmotion.config import Config, Limits
from stillmotion.data import read_frames
from stillmotion.errors import ConfigError, StillmotionError
from stillmotion.evaluation.flow import Flow, flow_between, grey_of, opencv
from stillmotion.sampling import Context

_SIDE = 128  # pixels: what the toyworld's models draw
_PROMPT = "a red ball rolling right on green grass"
_PHASES = ("sample", "decode", "write")  # what takes longer for longer clips


@dataclass(frozen=True, kw_only=True)
class LongShape(Config):
    """The clips that are made."""

    short: Annotated[int, Limits(minimum=1)] = 64
    """Frames of the short clip."""

    long: Annotated[int, Limits(minimum=2)] = 1024
    """Frames of the long clip."""

    steps: Annotated[int, Limits(minimum=1)] = 4
    """Denoising steps of both."""

    window: Annotated[int, Limits(minimum=1)] = 16
    """Frames of a window."""

    def check(self) -> None:
        """Refuse a long clip that is none."""
        if self.long <= self.short:
            raise ConfigError(f"long: expected more frames than the short clip's {self.short}, got {self.long}")


@dataclass(frozen=True, kw_only=True)
class ClipCost:
    """What one clip took, and how steadily it moves."""

    num_frames: int
    peak: int
    """The most resident memory of its process, in bytes."""
    latents: int
    """What the latents of all frames take, in bytes."""
    seconds: float
    """What its frames took together, without what is done once: loading models, reading the prompt."""
    seen: float
    """How often the UNet sees each frame in a step, on average: windows overlap."""
    jump_at_borders: float | None
    """The mean flow jump between the two frames where a window begins or ends, in percent of the side; None without any."""
    jump_elsewhere: float | None
    """The mean flow jump between all other frames; None without any."""

    @property
    def seconds_per_frame(self) -> float:
        """Return the time that a frame takes."""
        return self.seconds / self.num_frames

    @property
    def jump_ratio(self) -> float | None:
        """Return how many times larger the jump at borders is; None where there is nothing to compare."""
        return self.jump_at_borders / self.jump_elsewhere if self.jump_at_borders and self.jump_elsewhere else None


@dataclass(frozen=True, kw_only=True)
class LongTiming:
    """A long clip beside a short one."""

    shape: LongShape
    num_threads: int
    short: ClipCost
    long: ClipCost


def bench_long(shape: LongShape, *, num_threads: int | None = None) -> LongTiming:
    """Make a short and a long clip of the toyworld on the CPU, each in a fresh process, one after the other.

    The short one is made before the long one and after it, and the mean of its times told: a machine's speed drifts.

    The processes import the program's own main module anew, so a script that calls this does its work under
    `if __name__ == "__main__":`.

    Raises:
        StillmotionError: OpenCV is not installed, memory cannot be measured here, or there is too little of it.
    """
    try:
        opencv()
    except ImportError as error:
        raise StillmotionError('Flow is measured with OpenCV: pip install "stillmotion[evaluation]".') from error
    threads = num_threads or torch.get_num_threads()
    before, long, after = (_in_own_process(shape, count, threads) for count in (shape.short, shape.long, shape.short))
    short = replace(before, seconds=(before.seconds + after.seconds) / 2)
    return LongTiming(shape=shape, num_threads=threads, short=short, long=long)


def cost_of(shape: LongShape, num_frames: int, num_threads: int) -> ClipCost:
    """Make a clip in this process, and measure it; the peak is that of all that the process has done."""
    keep_freed_memory()  # as the command does
    torch.set_num_threads(num_threads)
    with tempfile.TemporaryDirectory(prefix="stillmotion-bench-") as folder:
        config = AnimateConfig(
            prompt=_PROMPT,
            num_frames=num_frames,
            num_inference_steps=shape.steps,
            context_length=shape.window,
            context="static",
            width=_SIDE,
            height=_SIDE,
            seed=0,
            device="cpu",
            formats=("mp4", "gif", "png"),  # the command's own, and one without loss to measure
            output_dir=Path(folder),
        )
        plan, session = make_plan(config), Session()
        t2i = session.load(plan).t2i
        (clip,) = (event.clip for event in run(plan, session=session, keep_frames=False) if isinstance(event, Finished))
        most = peak()  # before flow is measured
        frames = next(output.path for output in clip.outputs if output.path.is_dir())
        jumps, context = list(flow_jumps(read_frames(frames))), context_of(config)
    at_borders = borders(context, num_frames)
    return ClipCost(
        num_frames=num_frames,
        peak=most,
        latents=4 * int(t2i.vae.config.latent_channels) * (_SIDE // t2i.scale) ** 2 * num_frames,
        seconds=sum(clip.run["timings"][phase] for phase in _PHASES),
        seen=sum(len(window.frames) for window in context.windows(num_frames)) / num_frames,
        jump_at_borders=_mean(jump for pair, jump in enumerate(jumps, start=1) if pair in at_borders),
        jump_elsewhere=_mean(jump for pair, jump in enumerate(jumps, start=1) if pair not in at_borders),
    )


def borders(context: Context, num_frames: int) -> frozenset[int]:
    """Return the frames whose successor other windows see than they: between the two a window begins or ends.

    For windows that lie the same in every step.
    """
    seen: list[set[int]] = [set() for _ in range(num_frames)]
    for number, window in enumerate(context.windows(num_frames)):
        for frame in window.frames:
            seen[frame].add(number)
    return frozenset(frame for frame, (here, there) in enumerate(pairwise(seen)) if here != there)


def flow_jumps(frames: Iterable[UInt8[np.ndarray, "height width 3"]]) -> Iterator[float]:
    """Yield how far the flow from a frame to the next is from the mean of the flows before and after it.

    For frames 1, 2 … as far as there are two more behind, the mean over all pixels in percent of the shorter side. Steady
    motion has none, a seam between the two frames has one as large as itself.
    """
    flows: list[Flow] = []
    for before, after in pairwise(map(grey_of, frames)):
        flows = [*flows[-2:], flow_between(before, after)]
        if len(flows) == 3:
            apart = flows[1] - (flows[0] + flows[2]) / 2
            yield 100 * float(np.hypot(apart[..., 0], apart[..., 1]).mean()) / min(before.shape)


def _in_own_process(shape: LongShape, num_frames: int, num_threads: int) -> ClipCost:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(cost_of, shape, num_frames, num_threads).result()
        except BrokenProcessPool as error:
            raise StillmotionError(
                f"The process that made {num_frames} frames was ended, most likely because there is too little memory."
            ) from error


def _mean(values: Iterable[float]) -> float | None:
    found: Sequence[float] = list(values)
    return float(np.mean(found)) if found else None
