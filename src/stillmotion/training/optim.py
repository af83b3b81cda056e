"""The optimizers: Muon for matrices and convolutions, AdamW for the rest.

torch's own Muon takes two-dimensional parameters only and iterates in bfloat16, which costs more than the whole
backward pass on a CPU without such instructions; this one flattens convolutions, works in float32, iterates
on the small Gram matrix, and orthogonalises all matrices of a shape in one batched product.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Jordan et al. 2024, "Muon: an optimizer for hidden layers": the quintic that maps singular values near 1 in five steps.
QUINTIC = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def orthogonalize(matrices: Float[Tensor, "count rows columns"]) -> Float[Tensor, "count rows columns"]:
    """Return matrices of the same singular vectors whose singular values all lie near 1."""
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    # Every iterate is a polynomial of the first Gram matrix times x, so all but the last product stay small and square.
    a, b, c = QUINTIC
    gram = x @ x.mT
    whole: Tensor | None = None
    for _ in range(NEWTON_SCHULZ_STEPS):
        factor = b * gram + c * gram @ gram
        factor.diagonal(dim1=1, dim2=2).add_(a)
        whole = factor if whole is None else factor @ whole
        gram = factor @ gram @ factor
    assert whole is not None
    x = whole @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised: every direction of a matrix moves at the same rate.

    `lr` is the root-mean-square size of an update's entries times sqrt(columns) for a tall matrix; parameters have two
    dimensions or more, those past the first are taken as columns. Before an update a matrix loses `lr` × `weight_decay`
    of itself (Liu et al. 2025, "Muon is scalable for LLM training", equation 3).
    """

    def __init__(
        self, params: Iterable[nn.Parameter], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a saved state; one from before there was a decay has none."""
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("weight_decay", 0.0)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002  # torch's own signature
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[tuple(parameter.flatten(1).shape)].append(parameter)
            for (rows, columns), parameters in by_shape.items():
                updates = torch.stack([self._momentum(p, group["momentum"]).flatten(1) for p in parameters])
                updates = orthogonalize(updates) * max(1.0, rows / columns) ** 0.5
                for parameter, update in zip(parameters, updates.unbind(0), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.view_as(parameter), alpha=-group["lr"])

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """Return the Nesterov step of one parameter."""
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        assert parameter.grad is not None
        state["momentum"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["momentum"], momentum)


def split_parameters(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the trainable parameters as (those for Muon, those for AdamW).

    Embeddings, input and output layers, biases and norms go to AdamW, as Muon's author advises.
    """
    edges = {
        id(p)
        for name, layer in module.named_modules()
        for p in layer.parameters(recurse=False)
        if _is_edge(name, layer)
    }
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            (matrices if parameter.ndim >= 2 and id(parameter) not in edges else others).append(parameter)
    return matrices, others


def _is_edge(name: str, layer: nn.Module) -> bool:
    return isinstance(layer, nn.Embedding) or name.rsplit(".", maxsplit=1)[-1] in ("conv_in", "conv_out")
