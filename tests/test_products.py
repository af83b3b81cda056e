"""Linear layers by the faster library: the same numbers, no gradients lost, nothing else touched."""

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillmotion import products
from stillmotion.products import LAYER, faster_products

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
