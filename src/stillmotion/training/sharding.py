"""`strategy: fsdp`: every process keeps its part of the motion module, of its gradient and of the optimizer's moments.

PyTorch's `fully_shard` does it. Nothing else knows: a checkpoint holds whole tensors, so a run goes on at any number of
processes, sharded or not (docs/decisions/0012).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from stillmotion.motion import MotionModule
from stillmotion.training.world import World


def shard(motion: MotionModule, world: World, device: torch.device) -> None:
    """Deal the parameters out to the processes, each of which holds the same ones now.

    They are gathered for a site's own forward and backward pass. Gradients are added up, not averaged, since every
    process's loss is already its share of the batch's.
    """
    if world.size == 1:
        return
    mesh = init_device_mesh(device.type, (world.size,))
    for site in motion.sites().values():
        parted = fully_shard(site, mesh=mesh, reshard_after_forward=True)
        parted.set_gradient_divide_factor(1.0)
        parted.set_force_sum_reduction_for_comms(True)  # the sum that every backend knows


def whole(tensor: Tensor) -> Tensor:
    """Return the whole of a sharded tensor, in every process; all must ask. Others are returned as they are."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Return the whole tensors in main memory; none where `keep` is false, since one process is enough to write them."""
    found = {}
    for name, tensor in tensors.items():
        complete = whole(tensor.detach())
        if keep:
            found[name] = complete.cpu().contiguous()
    return found


def part_like(complete: Tensor, like: Tensor) -> Tensor:
    """Return the part of a whole tensor that this process has of `like`; all of it where that is not sharded."""
    if not isinstance(like, DTensor):
        return complete
    return distribute_tensor(complete.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def gathered_moments(optimizer: torch.optim.Optimizer, *, keep: bool) -> dict[str, Any]:
    """Return an optimizer's state with whole tensors."""
    state = optimizer.state_dict()
    return {**state, "state": {place: _each(moments, keep) for place, moments in state["state"].items()}}


def load_moments(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Bring an optimizer to a state of whole tensors."""
    parameters = _parameters(optimizer)
    state = {
        place: {
            name: part_like(value, parameters[place]) if isinstance(value, Tensor) and value.ndim else value
            for name, value in moments.items()
        }
        for place, moments in saved["state"].items()
    }
    optimizer.load_state_dict({**saved, "state": state})


def _each(moments: Mapping[str, Any], keep: bool) -> dict[str, Any]:
    tensors = {name: value for name, value in moments.items() if isinstance(value, Tensor)}
    return {**moments, **gathered(tensors, keep=keep)}


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    groups: Iterable[dict[str, Any]] = optimizer.param_groups
    return [parameter for group in groups for parameter in group["params"]]
