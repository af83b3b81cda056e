"""What PyTorch tells of the CPU, and that an older PyTorch, which tells nothing, still serves."""

import pytest
import torch

from stillmotion.devices import choose_dtype, device_name
from stillmotion.processor import processor
from stillmotion.products import faster_gradients, faster_products

CPU = torch.device("cpu")


@pytest.mark.skipif(not hasattr(torch.cpu, "get_capabilities"), reason="this PyTorch tells nothing of the CPU")
def test_it_has_a_name() -> None:
    assert processor()["cpu_name"]
    assert device_name(CPU) == processor()["cpu_name"]


def test_a_pytorch_that_tells_nothing_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert processor() == {}
    assert device_name(CPU) == "cpu"
    assert choose_dtype("auto", CPU, tiny=False) == torch.float32
    with torch.no_grad(), faster_products(torch.float32, CPU), faster_gradients(CPU):
        assert torch.nn.Linear(2, 3)(torch.ones(1, 2)).shape == (1, 3)
