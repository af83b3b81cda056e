"""A denoising step: our denoiser on a plugged UNet, and diffusers' own motion UNet."""

import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel, UNetMotionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stillmotion.bench.clock import seconds_of, threads
from stillmotion.bench.models import make_parts
from stillmotion.motion import MotionModule, plug
from stillmotion.products import LAYER, faster_products
from stillmotion.sampling import Denoiser


@dataclass(frozen=True, kw_only=True)
class StepTiming:
    """One denoising step, ours and theirs."""

    size: str
    dtype: str
    num_threads: int
    ours: tuple[float, ...]
    """Seconds of each run through our denoiser, our motion module plugged into diffusers' UNet."""
    theirs: tuple[float, ...]
    """Seconds of diffusers' UNetMotionModel, run after run in turn with ours."""
    motion_share: float
    """The part of our step that is spent in motion modules."""
    flops: int
    """Floating-point operations of a step."""
    peak_flops: float
    """Operations per second of a large matrix product on this machine, in this dtype."""
    difference: float
    """Relative difference of both outputs, the norm's statistics taken as diffusers takes them."""

    @property
    def ratio(self) -> float:
        """Return how many times faster ours is: the median over the pairs."""
        return statistics.median(b / a for a, b in zip(self.ours, self.theirs, strict=True))

    @property
    def share_of_peak(self) -> float:
        """Return the part of the machine's matrix rate that our step reaches."""
        return self.flops / statistics.median(self.ours) / self.peak_flops


def bench_step(
    *,
    size: str = "tiny",
    dtype: torch.dtype = torch.float32,
    pairs: int = 5,
    num_frames: int = 8,
    side: int = 16,
    num_threads: int | None = None,
) -> StepTiming:
    """Time a denoising step of one clip of `num_frames` frames of `side` × `side` latents, both halves of guidance."""
    with threads(num_threads) as count:
        unet, motion, theirs = _models(size, dtype)
        latents = torch.randn(2, 4, num_frames, side, side, dtype=dtype)
        text = torch.randn(2, 77, unet.config.cross_attention_dim, dtype=dtype)
        rows = text.repeat_interleave(num_frames, 0)  # their pipeline does this once, before the first step
        denoiser = Denoiser(unet)
        with torch.inference_mode(), plug(unet, motion, num_frames):

            def our_step() -> Tensor:
                return denoiser(latents, 500, text)

            def their_step() -> Tensor:
                return theirs(latents, 500, encoder_hidden_states=rows).sample

            with FlopCounterMode(display=False, custom_mapping={LAYER: _flops_of_layer} if LAYER else {}) as counter:
                ours = our_step()
            difference = float((ours - their_step()).float().norm() / ours.float().norm())
            timed = [(seconds_of(our_step), seconds_of(their_step)) for _ in range(pairs)]
            with _motion_clock(motion) as spent:
                whole = seconds_of(our_step)
        return StepTiming(
            size=size,
            dtype=str(dtype).removeprefix("torch."),
            num_threads=count,
            ours=tuple(a for a, _ in timed),
            theirs=tuple(b for _, b in timed),
            motion_share=sum(spent) / whole,
            flops=counter.get_total_flops(),
            peak_flops=_peak(dtype),
            difference=difference,
        )


def _models(size: str, dtype: torch.dtype) -> tuple[UNet2DConditionModel, MotionModule, UNetMotionModel]:
    unet, motion, adapter = make_parts(size, dtype)
    theirs = UNetMotionModel.from_unet2d(unet, adapter).eval().to(dtype)
    return unet, motion, theirs


@contextmanager
def _motion_clock(motion: MotionModule) -> Iterator[list[float]]:
    """Collect the seconds that each motion module takes."""
    spent: list[float] = []
    started: list[float] = []

    def begin(_: nn.Module, __: object) -> None:
        started.append(time.perf_counter())

    def end(_: nn.Module, __: object, ___: object) -> None:
        spent.append(time.perf_counter() - started.pop())

    sites = list(motion.sites().values())
    handles = [site.register_forward_pre_hook(begin) for site in sites]
    handles += [site.register_forward_hook(end) for site in sites]
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()


def _flops_of_layer(rows: torch.Size, weight: torch.Size, *_: object, **__: object) -> int:
    return 2 * math.prod(rows) * weight[0]


def _peak(dtype: torch.dtype, side: int = 1536) -> float:
    """Return the operations per second of a square matrix product as the denoiser computes it, the best of five."""
    a, b = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
    with torch.no_grad(), faster_products(dtype, a.device):
        return 2 * side**3 / min(seconds_of(lambda: F.linear(a, b)) for _ in range(5))
