"""Weights of a file into a model, by name; every one must be used."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stillmotion.errors import MismatchError


def filled(model: Any, tensors: Mapping[str, Tensor], names: Mapping[str, str], where: str, else_: str) -> Any:
    """Return the model with its weights, those of layer `x` being called `names[x]` in the file, or as the layer is.

    The model may lie on the `meta` device; the weights are taken as they are, not copied.

    Raises:
        MismatchError: A weight is missing, of another size, or fits nowhere in the model; `else_` says what that means.
    """
    state, missing, misfit = {}, [], []
    for name, wanted in model.state_dict().items():
        original = _original(name, names)
        value = tensors.get(original)
        if value is None:
            missing.append(original)
        elif _sizes(value) != _sizes(wanted):
            misfit.append(f"{original} {tuple(value.shape)} for {tuple(wanted.shape)}")
        else:
            state[name] = value.reshape(wanted.shape)
    unused = sorted(tensors.keys() - {_original(name, names) for name in state})
    for what, which in (("lacks", missing), ("has others in size:", misfit), ("has some that fit nowhere:", unused)):
        if which:
            raise MismatchError(f"{where} {what} {len(which)} weights, first {which[0]}; {else_}.")
    model.load_state_dict(state, strict=True, assign=True)
    return model


def _original(name: str, names: Mapping[str, str]) -> str:
    layer, _, leaf = name.rpartition(".")
    return f"{names.get(layer, layer)}.{leaf}"


def _sizes(tensor: Tensor) -> list[int]:
    """Return a weight's sizes but those of 1: what is a 1×1 convolution in one layout is a linear layer in another."""
    return [size for size in tensor.shape if size != 1]
