"""Linear layers by the faster library: the same numbers, no gradients lost, nothing else touched."""

from contextlib import AbstractContextManager, nullcontext

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from stillmotion import products
from stillmotion.products import LAYER, faster_gradients, faster_products, propagate

CPU = torch.device("cpu")
SHAPES = [(3, 5), (2, 7, 5), (2, 3, 4, 5), (1, 5)]


@pytest.fixture
def amd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_made_by_amd", lambda: True)


@pytest.mark.usefixtures("amd")
@pytest.mark.skipif(LAYER is None, reason="a PyTorch without oneDNN")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_layers_are_the_same_to_rounding(shape: tuple[int, ...], dtype: torch.dtype, apart: float, bias: bool) -> None:
    torch.manual_seed(0)
    layer, rows = nn.Linear(5, 9, bias=bias).to(dtype), torch.randn(shape).to(dtype)
    called = []
    with torch.no_grad(), pytest.MonkeyPatch.context() as patched:
        patched.setattr(products, "LAYER", lambda *given: called.append(given) or LAYER(*given))
        plain = layer(rows)
        with faster_products(dtype, CPU):
            fast, transposed = layer(rows), layer(rows.mT.contiguous().mT)
    assert len(called) == 2
    for other in (fast, transposed):
        assert other.shape == plain.shape and other.dtype == dtype and other.is_contiguous()
        torch.testing.assert_close(other, plain, rtol=apart, atol=apart)


@pytest.mark.usefixtures("amd")
def test_gradients_flow_as_ever() -> None:
    layer, rows = nn.Linear(5, 9), torch.randn(3, 5)
    with faster_products(torch.float32, CPU):
        layer(rows).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.usefixtures("amd")
@pytest.mark.skipif(LAYER is None, reason="a PyTorch without oneDNN")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("frozen", [(), ("weight",), ("bias",), ("rows",)], ids=str)
def test_gradients_are_the_same_to_rounding(shape: tuple[int, ...], bias: bool, frozen: tuple[str, ...]) -> None:
    def gradients(around: AbstractContextManager[object]) -> list[Tensor | None]:
        torch.manual_seed(0)
        layer, rows = nn.Linear(5, 9, bias=bias), torch.randn(shape)
        given = {"rows": rows, **dict(layer.named_parameters())}
        for name, tensor in given.items():
            tensor.requires_grad_(name not in frozen)
        with around:
            again = checkpoint(layer, rows, use_reentrant=False)
            propagate(again.sin().sum() + layer(rows).cos().sum())
        return [tensor.grad for tensor in given.values()]

    called = []
    plain = gradients(nullcontext())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(products, "LAYER", lambda *given: called.append(given) or LAYER(*given))
        fast = gradients(faster_gradients(CPU))
    # Three forward, one of them of the checkpointed layer again, and twice what the gradients take.
    assert len(called) == 3 + 2 * (2 - len({"rows", "weight"} & {*frozen}))
    for a, b in zip(fast, plain, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("amd")
@pytest.mark.skipif(LAYER is None, reason="a PyTorch without oneDNN")
def test_a_frozen_layer_keeps_no_rows_for_its_gradient() -> None:
    layer, rows = nn.Linear(5, 9).requires_grad_(False), torch.randn(3, 5, requires_grad=True)
    kept = []
    with (
        saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor),
        faster_gradients(CPU),
    ):
        layer(rows)
    assert [tensor.shape for tensor in kept] == [layer.weight.shape]


@pytest.mark.usefixtures("amd")
def test_autocast_and_no_gradients_go_their_own_way() -> None:
    layer, rows = nn.Linear(5, 9), torch.randn(3, 5)
    with faster_gradients(CPU):
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(rows).dtype == torch.bfloat16
        with torch.no_grad():
            assert layer(rows).grad_fn is None


class Wrapped(Tensor):
    """A tensor that is not a plain one, as quantised weights are."""


@pytest.mark.usefixtures("amd")
def test_what_is_not_plain_goes_its_own_way() -> None:
    rows, weight = torch.randn(3, 5), torch.randn(9, 5)
    with torch.no_grad(), faster_products(torch.float32, CPU):
        assert torch.equal(F.linear(rows.double(), weight.double()), rows.double() @ weight.double().T)
        assert isinstance(F.linear(rows, weight.as_subclass(Wrapped)), Wrapped)
        assert F.linear(rows[:0], weight).shape == (0, 9)


def test_elsewhere_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_made_by_amd", lambda: False)
    layer, rows = nn.Linear(5, 9), torch.randn(3, 5)
    with torch.no_grad():
        plain = layer(rows)
        with faster_products(torch.float32, CPU):
            assert torch.equal(layer(rows), plain)
        with faster_products(torch.float16, CPU), faster_products(torch.float32, torch.device("meta")):
            assert torch.equal(layer(rows), plain)


@pytest.mark.usefixtures("amd")
def test_a_compiled_model_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests alone check shapes, and a graph cannot hold that.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    torch.manual_seed(0)
    layers, rows = nn.Sequential(nn.Linear(5, 9), nn.SiLU(), nn.Linear(9, 4)), torch.randn(3, 5)
    compiled = torch.compile(layers, backend="eager")
    with torch.no_grad():
        plain = layers(rows)
        with faster_products(torch.float32, CPU):
            torch.testing.assert_close(compiled(rows), plain, rtol=1e-6, atol=1e-6)
