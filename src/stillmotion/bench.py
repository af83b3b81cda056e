"""Timings against diffusers' own motion UNet: same weights, dtype and threads, in turn within one process.

A timing is a ratio: machines differ and are noisy, so each pair of runs follows one another at once, and the median of
the pairs' ratios is what counts.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stillmotion.motion import MotionModule, plug
from stillmotion.motion.module import TemporalTransformer
from stillmotion.sampling import Denoiser

SIZES: dict[str, tuple[int, ...]] = {
    "sd15": (320, 640, 1280, 1280),
    "half": (160, 320, 640, 640),
    "tiny": (64, 128, 128, 128),
}
"""Widths of the UNet's levels that can be timed: Stable Diffusion 1.5's own, and smaller ones."""


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


@dataclass(frozen=True, kw_only=True)
class PlugTiming:
    """Getting motion into a UNet, ours and theirs."""

    size: str
    ours: float
    """Seconds of `plug`, the median."""
    theirs: float
    """Seconds of `UNetMotionModel.from_unet2d`."""
    copied: int
    """Bytes of weights that `plug` copies."""
    copied_by_diffusers: int
    """Bytes of weights that the other copies."""


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
    threads = torch.get_num_threads()
    torch.set_num_threads(num_threads or threads)
    try:
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

            with FlopCounterMode(display=False) as counter:
                ours = our_step()
            difference = float((ours - their_step()).float().norm() / ours.float().norm())
            timed = [(_seconds(our_step), _seconds(their_step)) for _ in range(pairs)]
            with _motion_clock(motion) as spent:
                whole = _seconds(our_step)
        return StepTiming(
            size=size,
            dtype=str(dtype).removeprefix("torch."),
            num_threads=torch.get_num_threads(),
            ours=tuple(a for a, _ in timed),
            theirs=tuple(b for _, b in timed),
            motion_share=sum(spent) / whole,
            flops=counter.get_total_flops(),
            peak_flops=_peak(dtype),
            difference=difference,
        )
    finally:
        torch.set_num_threads(threads)


def bench_plug(*, size: str = "sd15", times: int = 20) -> PlugTiming:
    """Time plugging in, and diffusers' way of making a second model."""
    unet, motion, adapter = _parts(size, torch.float32)
    before = _storages(unet) | _storages(motion)
    took = []
    for _ in range(times):
        started = time.perf_counter()
        plugged = plug(unet, motion, 16)
        took.append(time.perf_counter() - started)
        copied = {place: count for place, count in _storages(unet).items() if place not in before}
        plugged.unplug()
    started = time.perf_counter()
    theirs = UNetMotionModel.from_unet2d(unet, adapter)
    seconds = time.perf_counter() - started
    kept = before | _storages(adapter)
    return PlugTiming(
        size=size,
        ours=statistics.median(took),
        theirs=seconds,
        copied=sum(copied.values()),
        copied_by_diffusers=sum(count for place, count in _storages(theirs).items() if place not in kept),
    )


def _parts(size: str, dtype: torch.dtype) -> tuple[UNet2DConditionModel, MotionModule, MotionAdapter]:
    """Return a UNet, our motion module and diffusers' adapter with the same weights."""
    widths = SIZES[size]
    unet = UNet2DConditionModel(block_out_channels=widths, cross_attention_dim=768, attention_head_dim=8)
    # Their motion norm pools over frames; ours does the same here, so that both compute one function.
    motion = MotionModule.from_variant("v3", block_out_channels=widths, motion_norm="across_frames")
    for site in motion.sites().values():
        nn.init.normal_(site.proj_out.weight, std=0.02)
    adapter = MotionAdapter(block_out_channels=widths, use_motion_mid_block=False)
    adapter.load_state_dict(motion.state_dict())
    return unet.eval().to(dtype), motion.eval().to(dtype), adapter.eval().to(dtype)


def _models(size: str, dtype: torch.dtype) -> tuple[UNet2DConditionModel, MotionModule, UNetMotionModel]:
    unet, motion, adapter = _parts(size, dtype)
    theirs = UNetMotionModel.from_unet2d(unet, adapter).eval().to(dtype)
    return unet, motion, theirs


def _storages(module: nn.Module) -> dict[int, int]:
    """Return the bytes of every weight by where it lies."""
    return {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in module.parameters()}


def _seconds(run: Callable[[], Tensor]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@contextmanager
def _motion_clock(motion: MotionModule) -> Iterator[list[float]]:
    """Collect the seconds that each motion module takes."""
    spent: list[float] = []
    started: list[float] = []

    def begin(_: nn.Module, __: object) -> None:
        started.append(time.perf_counter())

    def end(_: nn.Module, __: object, ___: object) -> None:
        spent.append(time.perf_counter() - started.pop())

    sites: list[TemporalTransformer] = list(motion.sites().values())
    handles = [site.register_forward_pre_hook(begin) for site in sites]
    handles += [site.register_forward_hook(end) for site in sites]
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()


def _peak(dtype: torch.dtype, side: int = 1536) -> float:
    """Return the operations per second of a square matrix product, the best of five."""
    a, b = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
    return 2 * side**3 / min(_seconds(lambda: a @ b) for _ in range(5))
