"""Parts of a model that take turns on an accelerator: a part lies in the computer's memory until it is called.

Each is called through a hook of accelerate's. Between calls everything is on the CPU, what goes in and what comes out
too: whoever calls need not know of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from accelerate.utils import send_to_device
from torch import Tensor, nn

HOME = torch.device("cpu")


@dataclass(frozen=True)
class Part:
    """What is on the accelerator together."""

    modules: Sequence[nn.Module]
    """All that moves; what is put into them later moves from their next turn on."""
    doors: Sequence[nn.Module]
    """Those of them, and of their submodules, that are called from outside."""


def part_of(*modules: nn.Module, depth: int = 0) -> Part:
    """Return modules as one part, called themselves or by their submodules down to `depth`."""
    doors, level = list(modules), list(modules)
    for _ in range(depth):
        level = [child for module in level for child in module.children()]
        doors += level
    return Part(modules, list({id(door): door for door in doors}.values()))


def place_of(module: nn.Module) -> torch.device:
    """Return where a module takes its inputs and gives its outputs: where its weights are, or home if it takes turns."""
    if any(isinstance(getattr(door, "_hf_hook", None), _Door) for door in (module, *module.children())):
        return HOME
    return next(module.parameters()).device


@contextmanager
def taking_turns(parts: Sequence[Part], device: torch.device) -> Iterator[None]:
    """Let parts whose weights are on the CPU compute on `device`, one of them there at a time.

    Their outputs come back to the CPU. Afterwards the modules are what they were. For inference: weights that change on
    the device are not brought home.
    """
    stage = _Stage(device)
    doors = [(door, part) for part in parts for door in part.doors]
    try:
        for door, part in doors:
            add_hook_to_module(door, _Door(stage, part))
        yield
    finally:
        stage.clear()
        for door, _ in doors:
            remove_hook_from_module(door)


@dataclass
class _Stage:
    """The accelerator, and who is on it."""

    device: torch.device
    depth: int = 0
    """How many calls are under way within one another."""
    _part: Part | None = None
    _resting: dict[tuple[int, str], tuple[dict[str, Any], Tensor]] = field(default_factory=dict)

    def enter(self, part: Part) -> None:
        if part is not self._part:
            self.clear()
        self._part = part
        if self.depth == 0:  # what was put into it since its last turn has yet to come
            for module in (inner for outer in part.modules for inner in outer.modules()):
                for store in (module._parameters, module._buffers):  # noqa: SLF001  # as accelerate itself moves weights
                    self._fetch(store)
        self.depth += 1

    def _fetch(self, store: dict[str, Any]) -> None:
        for name, tensor in store.items():
            if tensor is not None and (id(store), name) not in self._resting:
                self._resting[id(store), name] = (store, tensor)
                here = tensor.data.to(self.device, non_blocking=True)
                store[name] = nn.Parameter(here, requires_grad=False) if isinstance(tensor, nn.Parameter) else here

    def leave(self, output: Any) -> Any:
        self.depth -= 1
        return output if self.depth else send_to_device(output, HOME)

    def clear(self) -> None:
        """Send everyone home. What lies there never changed, so nothing is copied back."""
        for (_, name), (store, tensor) in self._resting.items():
            store[name] = tensor
        self._resting.clear()
        self._part, self.depth = None, 0


class _Door(ModelHook):
    """A call from outside: the part comes, the inputs after it, and the outputs go home when the call is over."""

    def __init__(self, stage: _Stage, part: Part) -> None:
        self._stage, self._part = stage, part

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:  # noqa: ARG002
        self._stage.enter(self._part)
        return send_to_device(args, self._stage.device), send_to_device(kwargs, self._stage.device)

    def post_forward(self, module: nn.Module, output: Any) -> Any:  # noqa: ARG002
        return self._stage.leave(output)
