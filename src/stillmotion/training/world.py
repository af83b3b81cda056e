"""Several processes as one training, started by `torchrun`: each computes its slots of the batch, gradients add up.

What is trained is small beside what is frozen, so one sum over all gradients after the last part of the batch is all that
is exchanged (docs/decisions/0012).
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from stillmotion.errors import ConfigError


@dataclass(frozen=True)
class World:
    """The processes of a run, and which of them this is."""

    rank: int = 0
    size: int = 1
    sharded: bool = False
    """Whether each holds a part of what is trained, so that none can compute alone."""

    @property
    def leads(self) -> bool:
        """Return whether this process writes and tells what is written and told once."""
        return self.rank == 0

    def slots(self, batch_size: int) -> range:
        """Return the slots of a batch that this process computes: neighbours, as micro-batches are.

        So two processes add up what one process adds up in two micro-batches, and the sum is the same to the bit.

        Raises `ConfigError` where they cannot be dealt out evenly: the batch is the same however many processes there are.
        """
        if batch_size % self.size:
            raise ConfigError(f"batch_size: expected a multiple of the {self.size} processes, got {batch_size}")
        share = batch_size // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    def add_up(self, parameters: Sequence[nn.Parameter], loss: float) -> float:
        """Leave the sum of all processes' gradients in `parameters`; return the sum of their losses."""
        if self.size == 1:
            return loss
        if self.sharded:  # their gradients were added up in the backward pass
            told = torch.tensor([loss], dtype=torch.float32, device=parameters[0].device)
            dist.all_reduce(told)
            return float(told)
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        told = torch.tensor([loss], dtype=torch.float32, device=gradients[0].device)
        flat = torch.cat([told, *(gradient.float().flatten() for gradient in gradients)])
        dist.all_reduce(flat)
        for parameter, part in zip(parameters, flat[1:].split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)
        return float(flat[0])

    def any(self, flag: bool) -> bool:
        """Return whether any process says so."""
        if self.size == 1:
            return flag
        told = torch.tensor([float(flag)], device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(told)
        return bool(told.item())

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined(device: torch.device, *, sharded: bool = False) -> Iterator[World]:
    """Give the world that `torchrun` has started this process in; of one process where it has not."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size(), sharded) if dist.is_initialized() else World()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), size, sharded)
    finally:
        dist.destroy_process_group()
