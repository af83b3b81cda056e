"""Updates of a layer that are no product of two matrices: LoHa, LoKr, LoCon in Tucker form, whole differences.

    LoHa     ΔW = alpha/rank · (w1_a w1_b) ∘ (w2_a w2_b), each factor in Tucker form where hada_t1, hada_t2 are there
    LoKr     ΔW = alpha/rank · w1 ⊗ w2, either factor whole or itself a product
    LoCon    ΔW = alpha/rank · up · mid · down
    full     ΔW = diff, and diff_b of the bias

The first two are rebuilt by peft's own layers (names and scales of the LyCORIS files: github.com/KohakuBlueleaf/LyCORIS).
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from peft import LoHaConfig, LoKrConfig
from peft.tuners.loha.layer import Conv2d as LoHaConv2d
from peft.tuners.loha.layer import Linear as LoHaLinear
from peft.tuners.lokr.layer import Conv2d as LoKrConv2d
from peft.tuners.lokr.layer import Linear as LoKrLinear
from torch import Tensor, nn

from stillmotion.t2i.retuning import Change

FACTORS = re.compile(r"hada_(w[12]_[ab]|t[12])|lokr_(w[12](_[ab])?|t2)|diff(_b)?|lora_mid\.weight")
"""What the parts of such an update are called, behind the layer."""

_NEEDED = {
    "hada": {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"},
    "lora_mid": {"lora_mid.weight", "lora_down.weight", "lora_up.weight"},
}
_NAME = "stillmotion"


def lacks_a_part(factors: Mapping[str, Tensor]) -> bool:
    """Return whether an update is not whole."""
    if any(name.startswith("lokr") for name in factors):
        return not all(
            {f"lokr_w{n}"} <= factors.keys() or {f"lokr_w{n}_a", f"lokr_w{n}_b"} <= factors.keys() for n in (1, 2)
        )
    if any(name.startswith("diff") for name in factors):
        return "diff" not in factors
    kind = "hada" if any(name.startswith("hada") for name in factors) else "lora_mid"
    return not _NEEDED[kind] <= factors.keys()


def changes(factors: Mapping[str, Tensor], alpha: float | None, layer: nn.Module) -> dict[str, Change]:
    """Return what the update adds to the layer's weight, and to its bias where it does.

    `layer` is the linear layer or convolution that is changed, for its sizes.
    """
    if "diff" in factors:
        whole = {"weight": factors["diff"], "bias": factors.get("diff_b")}
        return {name: _constant(value) for name, value in whole.items() if value is not None}
    if "lora_mid.weight" in factors:
        return {"weight": _tucker(factors, alpha)}
    return {"weight": _rebuilt(factors, alpha, layer)}


def shape_of(factors: Mapping[str, Tensor], alpha: float | None, layer: nn.Module) -> tuple[int, ...] | None:
    """Return the shape of what is added to a layer's weight; None where the parts do not even fit each other."""
    weight: Any = layer.weight
    try:
        return tuple(changes(factors, alpha, layer)["weight"](weight).shape)
    except RuntimeError:
        return None


def _constant(value: Tensor) -> Change:
    return lambda own: value.to(own).reshape(own.shape) if value.numel() == own.numel() else value


def _tucker(factors: Mapping[str, Tensor], alpha: float | None) -> Change:
    up, mid, down = (factors[f"lora_{part}.weight"] for part in ("up", "mid", "down"))
    scale = 1.0 if alpha is None else alpha / down.shape[0]

    def change(own: Tensor) -> Tensor:
        parts = (up.flatten(1).to(own), mid.to(own), down.flatten(1).to(own))
        return torch.einsum("o a, a b k l, b i -> o i k l", *parts) * scale

    return change


def _rebuilt(factors: Mapping[str, Tensor], alpha: float | None, layer: nn.Module) -> Change:
    """Return the change of a LoHa or LoKr, by a peft layer that is given the file's factors."""
    tucker = any(name in factors for name in ("hada_t1", "lokr_t2"))
    is_hada = "hada_w1_a" in factors
    ranks = [factors[name].shape[0] for name in ("hada_w1_b", "lokr_w1_b", "lokr_w2_b") if name in factors]
    rank = ranks[0] if ranks else 1
    # Without a rank, LoKr's factors are whole and its alpha says nothing; without an alpha the factor is 1.
    scale = float(rank) if alpha is None or not ranks else alpha
    shape = _shape_only(layer)
    config: Any = (LoHaConfig if is_hada else LoKrConfig)(r=rank, alpha=scale, use_effective_conv2d=tucker)
    is_conv = isinstance(shape, nn.Conv2d)
    kinds: Any = (LoHaConv2d if is_conv else LoHaLinear) if is_hada else (LoKrConv2d if is_conv else LoKrLinear)
    host = kinds(shape, _NAME, config, r=rank, alpha=scale)
    for name in host.adapter_layer_names:
        if _NAME in (made := getattr(host, name)):
            del made[_NAME]

    def change(own: Tensor) -> Tensor:
        for name, value in factors.items():
            getattr(host, name)[_NAME] = nn.Parameter(value.to(own), requires_grad=False)
        try:
            return host.get_delta_weight(_NAME)
        finally:
            for name in factors:
                del getattr(host, name)[_NAME]

    return change


def _shape_only(layer: nn.Module) -> nn.Module:
    """Return a layer of the same sizes without weights."""
    if isinstance(layer, nn.Conv2d):
        sizes = {"kernel_size": layer.kernel_size, "groups": layer.groups}
        return nn.Conv2d(layer.in_channels, layer.out_channels, **sizes, device="meta")  # type: ignore[arg-type]
    assert isinstance(layer, nn.Linear)
    return nn.Linear(layer.in_features, layer.out_features, device="meta")
