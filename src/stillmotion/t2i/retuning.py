"""Layers that compute with other weights for a while, W + Σ strength · ΔW, and then with their own again.

A stand-in of the layer's own class takes its place and shares everything with it but the weights that change. So whatever
works on a linear layer or a convolution (peft's LoRA, `.to()` before, hooks) works on it, nothing is computed per call, and
the layer itself is never written to: putting it back is exact. Several updates of one layer add up, in any order.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from stillmotion.errors import MismatchError

Change = Callable[[Tensor], Tensor]
"""What an update adds to a parameter, in float32, given the parameter as the model has it."""

Changes = Mapping[str, Mapping[str, Change]]
"""By the path of a layer, by the name of its parameter ("weight", "bias"), what is added."""

_MARK = "stillmotion_tunings"


@dataclass(eq=False)
class _Tunings:
    """What a stand-in knows: the layer it stands for, and every update with its strength."""

    layer: nn.Module
    strengths: dict["Tuning", float] = field(default_factory=dict)


class Tuning:
    """Updates of some layers at work, until removed."""

    def __init__(self, root: nn.Module, changes: Changes, strength: float) -> None:
        """Put the updates to work; raise `MismatchError`, leaving all as it was, where one has not its layer's shape."""
        self._root, self._changes = root, changes
        try:
            self.strength = strength
        except BaseException:
            self.remove()
            raise

    @property
    def strength(self) -> float:
        """Return what the updates are multiplied by; at 0 the layers compute with the very weights of the model."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._strength = float(value)
        for path in self._changes:
            host, name = _seat(self._root, path)
            twin = _stand_in(getattr(host, name))
            setattr(host, name, twin)
            _tunings(twin).strengths[self] = self._strength
            _fill(twin, path)

    def remove(self) -> None:
        """Take the updates out; a layer that nothing else changes is put back. Safe to call twice."""
        for path in self._changes:
            host, name = _seat(self._root, path)
            twin = getattr(host, name)
            known = getattr(twin, _MARK, None)
            if known is None or known.strengths.pop(self, None) is None:
                continue
            if known.strengths:
                _fill(twin, path)
            else:
                setattr(host, name, known.layer)

    def change(self, path: str, parameter: str) -> Change | None:
        """Return what is added to a parameter, None where it stays."""
        return self._changes.get(path, {}).get(parameter)


def _seat(root: nn.Module, path: str) -> tuple[nn.Module, str]:
    """Return whose attribute the layer is, and under what name: peft keeps it inside a layer of its own."""
    parent, _, name = path.rpartition(".")
    host = root.get_submodule(parent)
    while hasattr(inside := getattr(host, name), "base_layer"):
        host, name = inside, "base_layer"
    return host, name


def _stand_in(layer: nn.Module) -> nn.Module:
    """Return the layer's stand-in, which may be itself already."""
    if hasattr(layer, _MARK):
        return layer
    twin = copy.copy(layer)
    twin._parameters = dict(layer._parameters)  # noqa: SLF001  # a shallow copy shares the dictionary
    setattr(twin, _MARK, _Tunings(layer))
    return twin


def _tunings(twin: nn.Module) -> _Tunings:
    known: _Tunings = getattr(twin, _MARK)
    return known


@torch.no_grad()
def _fill(twin: nn.Module, path: str) -> None:
    """Give a stand-in its weights: the layer's own parameter itself wherever nothing is added to it."""
    known = _tunings(twin)
    for name, own in known.layer.named_parameters(recurse=False):
        told = own.float()
        added = [
            _checked(change(told), own, f"{path}.{name}") * strength
            for tuning, strength in known.strengths.items()
            if strength and (change := tuning.change(path, name)) is not None
        ]
        for delta in added:
            told = told + delta
        setattr(twin, name, nn.Parameter(told.to(own.dtype), requires_grad=False) if added else own)


def _checked(delta: Tensor, own: Tensor, name: str) -> Tensor:
    if delta.shape != own.shape:
        raise MismatchError(f"{name} is changed by {tuple(delta.shape)}, but has {tuple(own.shape)}.")
    return delta.to(own.device)
