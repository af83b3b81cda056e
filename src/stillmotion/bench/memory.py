"""The peak memory of a training step, without and with gradient checkpointing, each in a process of its own."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from stillmotion.allocator import keep_freed_memory
from stillmotion.bench.cached_loop import cached_steps
from stillmotion.bench.models import make_motion, make_t2i
from stillmotion.bench.resident import forget_peak, peak
from stillmotion.bench.shape import TrainShape
from stillmotion.errors import StillmotionError
from stillmotion.motion import MotionLora, plug
from stillmotion.motion.lora import AppliedLora, new_adapter
from stillmotion.seeding import generator
from stillmotion.training.stages import STAGES

STAGE = STAGES["motion_lora"]
"""What is trained while memory is measured. Its gradients and moments are small, so what a step needs beside the weights is
activations, which is all that checkpointing can spare; and it is the stage that is trained on small machines."""

_NUM_STEPS = 2  # the first one makes the optimizer's moments


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """What a process of a training held, in bytes of resident memory."""

    peak: int
    """The most during its steps."""
    before: int
    """Before the first step: the weights, and the program itself."""
    weights: int
    """What the weights of all models take, whether trained or not."""


def step_memory(shape: TrainShape, cache: Path, num_threads: int, *, checkpointing: bool) -> StepMemory:
    """Return what training steps on the latent cache take, measured in a fresh process.

    Raises `StillmotionError` where the process did not come to its end.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_measured, shape, cache, num_threads, checkpointing=checkpointing).result()
        except BrokenProcessPool as error:
            raise StillmotionError(
                f"The process that measured memory was ended, most likely because there is too little of it for "
                f"{shape.num_frames} frames of {shape.pixels}x{shape.pixels} at size {shape.size}; take less of either, or "
                "leave memory out."
            ) from error


def _measured(shape: TrainShape, cache: Path, num_threads: int, *, checkpointing: bool) -> StepMemory:
    keep_freed_memory()  # as the command does
    torch.set_num_threads(num_threads)
    t2i, motion = make_t2i(shape.size), make_motion(shape.size).requires_grad_(requires_grad=False)
    with plug(t2i.unet, motion, shape.num_frames), _factors(t2i.unet) as factors:
        if checkpointing:
            t2i.unet.enable_gradient_checkpointing()
        parts = (t2i.unet, t2i.vae, t2i.text_encoder)
        weights = sum(p.numel() * p.element_size() for part in parts for p in part.parameters())
        steps = cached_steps(shape, t2i, factors, cache, cache / "run", _NUM_STEPS)
        forget_peak()
        before = peak()
        for _ in range(_NUM_STEPS):
            next(steps)
        return StepMemory(peak=peak(), before=before, weights=weights)


@contextmanager
def _factors(unet: UNet2DConditionModel) -> Iterator[nn.Module]:
    """Give the factors of a MotionLoRA at work in the UNet, to be trained."""
    assert STAGE.rank is not None
    fresh = new_adapter(MotionLora, unet, STAGE.paths(unet), STAGE.rank, generator(0, "bench factors"))
    applied = AppliedLora(unet, fresh, strength=1.0)
    try:
        yield nn.ParameterList(p.requires_grad_(True) for p in applied.parameters().values())
    finally:
        applied.remove()
