"""Getting motion into a UNet: our hooks, and diffusers' second model."""

import statistics
import time
from dataclasses import dataclass

import torch
from diffusers import UNetMotionModel
from torch import nn

from stillmotion.bench.models import make_parts
from stillmotion.motion import plug


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


def bench_plug(*, size: str = "sd15", times: int = 20) -> PlugTiming:
    """Time plugging in, and diffusers' way of making a second model."""
    unet, motion, adapter = make_parts(size, torch.float32)
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


def _storages(module: nn.Module) -> dict[int, int]:
    """Return the bytes of every weight by where it lies."""
    return {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in module.parameters()}
