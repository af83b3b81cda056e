"""Linear layers by whichever of PyTorch's two libraries multiplies faster on this processor."""

import functools
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

LAYER = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
"""oneDNN's linear layer as one call, which `torch.compile` makes use of, too; None where this PyTorch has none."""


def faster_products(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which linear layers without gradients are computed by oneDNN, where that is faster.

    PyTorch gives float32 to MKL, which keeps its best instructions from processors that are not Intel's: on such a one
    oneDNN is twice as fast. bfloat16 goes to oneDNN anyhow, but the bias by a pass of its own; in one call it is added on
    the way. What is computed is the same, to rounding (docs/decisions/0011). Elsewhere nothing changes.
    """
    serves = device.type == "cpu" and LAYER is not None and not torch.is_grad_enabled()
    better = dtype == torch.bfloat16 or (dtype == torch.float32 and _made_by_amd())
    return _OneDnnLinear(dtype) if serves and better else nullcontext()


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
            if LAYER is not None and self._serves(rows) and self._serves(weight) and rows.numel():
                return LAYER(rows, weight, bias, "none", [], "")
        return func(*args, **(kwargs or {}))

    def _serves(self, tensor: Tensor) -> bool:
        return type(tensor) in (Tensor, nn.Parameter) and tensor.dtype == self._dtype and tensor.device.type == "cpu"


@functools.cache
def _made_by_amd() -> bool:
    return str(torch.cpu.get_capabilities().get("cpu_name", "")).startswith("AMD")
