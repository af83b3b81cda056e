"""Linear layers by whichever of PyTorch's two libraries multiplies faster on this processor."""

import functools
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode

from stillmotion.processor import processor

LAYER: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
"""oneDNN's linear layer as one call, which `torch.compile` makes use of, too; None where this PyTorch has none."""


def faster_products(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which linear layers without gradients are computed by oneDNN, where that is faster.

    PyTorch gives float32 to MKL, which keeps its best instructions from processors that are not Intel's: on such a one
    oneDNN is twice as fast. bfloat16 goes to oneDNN anyhow, but the bias by a pass of its own; in one call it is added on
    the way. What is computed is the same, to rounding (docs/decisions/0011). Elsewhere nothing changes.
    """
    better = dtype == torch.bfloat16 or (dtype == torch.float32 and _made_by_amd())
    serves = better and _has_onednn(device) and not torch.is_grad_enabled()
    return _OneDnnLinear(dtype) if serves else nullcontext()


def faster_gradients(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which float32 linear layers and their gradients are computed by oneDNN, where that is faster.

    The backward pass, `propagate`, must lie within, too: there a checkpointed block is computed again, and must be so by the
    same library. Under autocast, and where `faster_products` would leave float32, nothing changes.
    """
    return _OneDnnLinear(torch.float32) if _has_onednn(device) and _made_by_amd() else nullcontext()


def propagate(loss: Tensor) -> None:
    """Add the gradient of `loss`, a scalar, to the leaves it was computed from, as `Tensor.backward` does.

    Within `faster_gradients`: PyTorch leaves such a context while a method of a tensor runs, and any function of tensors
    that can be overridden. An edge of the graph is no tensor.
    """
    torch.autograd.backward(get_gradient_edge(loss))


class _OneDnnLinear(TorchFunctionMode):
    """Takes calls of `torch.nn.functional.linear` on plain tensors of one dtype; all others go on as they are."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.linear and len(args) >= 2:
            rows, weight, bias = (*args, (kwargs or {}).get("bias"))[:3]
            if self._serves(rows) and self._serves(weight) and rows.numel() and not torch.is_autocast_enabled("cpu"):
                return _Linear.apply(rows, weight, bias) if torch.is_grad_enabled() else _linear(rows, weight, bias)
        return func(*args, **(kwargs or {}))

    def _serves(self, tensor: Tensor) -> bool:
        return type(tensor) in (Tensor, nn.Parameter) and tensor.dtype == self._dtype and tensor.device.type == "cpu"


class _Linear(torch.autograd.Function):
    """A linear layer whose three products, one forward and two backward, are oneDNN's."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        moves_rows, moves_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(
            rows if moves_weight else None, weight if moves_rows else None
        )  # a frozen layer's rows go
        return _linear(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        flat = outer.flatten(0, -2)
        of_rows = None if weight is None else _linear(outer, weight.T)
        # This way round since oneDNN is up to twice as fast where the first operand's rows are the layer's inputs.
        of_weight = None if rows is None else _linear(rows.flatten(0, -2).T, flat.T).T
        return of_rows, of_weight, flat.sum(0) if ctx.needs_input_grad[2] else None


def _linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    made: Tensor = LAYER(rows, weight, bias, "none", [], "")
    return made


def _has_onednn(device: torch.device) -> bool:
    return device.type == "cpu" and LAYER is not None


@functools.cache
def _made_by_amd() -> bool:
    return str(processor().get("cpu_name", "")).startswith("AMD")
