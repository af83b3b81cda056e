"""MotionLoRA and domain adapter: one mechanism, over peft. A MotionLoRA moves the motion module's own layers, a domain
adapter the attention of the image UNet; several act at once, each with a strength, and no stored weight changes.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import dispatch_default
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from stillmotion.errors import MismatchError
from stillmotion.motion.frames import Curve, FrameCount

Adapter = TypeVar("Adapter", bound="LoraAdapter")

_numbers = itertools.count()


@dataclass(frozen=True, kw_only=True, eq=False)
class LoraAdapter:
    """Low-rank updates by the layer they belong to: ΔW = up · down, any alpha folded in."""

    weights: Mapping[str, tuple[Float[Tensor, "rank inputs *kernel"], Float[Tensor, "outputs rank *kernel2"]]]
    """Layer path in the UNet with motion plugged, e.g. `mid_block.motion_modules.0.transformer_blocks.0.attn1.to_q`."""
    name: str = "adapter"
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """Return the largest rank of any layer."""
        return max(down.shape[0] for down, _ in self.weights.values())

    def __str__(self) -> str:
        """Return what it is and its name."""
        return f"{type(self).__name__} {self.name!r} (rank {self.rank})"


class MotionLora(LoraAdapter):
    """A motion learnt as an update of a motion module (paper §4.3)."""


class DomainAdapter(LoraAdapter):
    """What the training videos look like, learnt as an update of the image UNet (paper §4.1)."""


def new_adapter(
    kind: type[Adapter], root: nn.Module, paths: Sequence[str], rank: int, chance: torch.Generator
) -> Adapter:
    """Return an untrained adapter of those linear layers: random factors down, zero factors up, so it changes nothing.

    Raises `MismatchError` for a rank under 1 or over a layer's size, and where there is no layer to update.
    """
    if not paths:
        raise MismatchError(f"There is no layer here that a {kind.__name__} could update; expected one at least.")
    weights = {}
    for path in paths:
        outputs, inputs = root.get_submodule(path).weight.shape  # type: ignore[misc]
        if not 1 <= rank <= min(inputs, outputs):
            raise MismatchError(
                f"rank is {rank}, but {path} of {inputs} by {outputs} takes a rank from 1 to {min(inputs, outputs)}."
            )
        bound = inputs**-0.5  # as peft begins: uniform, Kaiming's of slope √5
        down = torch.empty(rank, inputs).uniform_(-bound, bound, generator=chance)
        weights[path] = (down, torch.zeros(outputs, rank))
    return kind(weights=weights)


class AppliedLora:
    """A LoRA at work in a UNet, until removed.

    Its strength may be one per frame of the clip where its layers take tokens of (batch, frames, places, channels), as those
    of a motion module do; `frames` then tells which are at hand.
    """

    def __init__(
        self, unet: nn.Module, adapter: LoraAdapter, strength: Curve, frames: FrameCount | None = None
    ) -> None:
        layers = dict(unet.named_modules())
        _check(adapter, layers)
        self._unet, self._adapter, self._frames = unet, adapter, frames
        self._handles: list[RemovableHandle] = []
        _require_frames(adapter, strength)
        self._name = f"stillmotion_{next(_numbers)}"
        self._wrapped: dict[str, nn.Module] = {}
        for path, (down, up) in adapter.weights.items():
            self._attach(path, layers[path], down, up)
        self.strength = strength

    @property
    def strength(self) -> Curve:
        """Return what the update is multiplied by: everywhere, or at each frame of the clip."""
        return self._strength

    @strength.setter
    def strength(self, value: Curve) -> None:
        _require_frames(self._adapter, value)
        self._strength = value if isinstance(value, tuple) else float(value)
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for path in self._adapter.weights:
            layer = self._unet.get_submodule(path)
            assert isinstance(layer, LoraLayer)
            # peft multiplies by one number, so what differs from frame to frame is multiplied in at the narrowest place.
            layer.scaling[self._name] = 1.0 if isinstance(self._strength, tuple) else self._strength
            if isinstance(self._strength, tuple):
                self._handles.append(layer.lora_A[self._name].register_forward_hook(self._scaled))
            active = [name for name in layer.active_adapters if name != self._name]
            # An adapter of strength 0 is left out of the sum, so that the result is the same to the bit. peft's own
            # `set_adapter` would also decide which of the host's adapters train.
            layer._active_adapter = [*active, self._name] if self._strength else active  # noqa: SLF001

    def _scaled(self, _: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
        assert self._frames is not None
        strength = self._frames.pick(self._strength)
        if isinstance(strength, tuple):
            return output * self._frames.along(strength, output).view(1, -1, 1, 1)
        return output * strength

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the factors at work, to be trained, as `<layer path>.down` and `<layer path>.up`."""
        found: dict[str, nn.Parameter] = {}
        for path in self._adapter.weights:
            layer: Any = self._unet.get_submodule(path)
            found[f"{path}.down"] = layer.lora_A[self._name].weight
            found[f"{path}.up"] = layer.lora_B[self._name].weight
        return found

    def remove(self) -> None:
        """Take the updates out; layers that were wrapped for this adapter alone are put back as they were."""
        for path in self._adapter.weights:
            layer = self._unet.get_submodule(path)
            assert isinstance(layer, LoraLayer)
            active = [name for name in layer.active_adapters if name != self._name]
            layer.delete_adapter(self._name)
            layer._active_adapter = active  # noqa: SLF001
            if not layer.lora_A:
                _set(self._unet, path, layer.get_base_layer())

    def _attach(self, path: str, layer: nn.Module, down: Tensor, up: Tensor) -> None:
        rank = down.shape[0]
        config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights=False)
        host: Any = layer  # peft's layers mix themselves into torch's, which no type says
        if isinstance(layer, LoraLayer):
            host.update_layer(self._name, r=rank, lora_alpha=rank, config=config)
        else:
            host = dispatch_default(layer, self._name, config, r=rank, lora_alpha=rank)
            host.train(layer.training)
            _set(self._unet, path, host)
        weight = host.get_base_layer().weight
        for factors, value in ((host.lora_A, down), (host.lora_B, up)):
            factor = factors[self._name]
            factor.weight = nn.Parameter(
                value.to(weight.device, weight.dtype).view(factor.weight.shape), requires_grad=False
            )


def _require_frames(adapter: LoraAdapter, strength: Curve) -> None:
    if isinstance(strength, tuple) and not isinstance(adapter, MotionLora):
        raise MismatchError(f"{adapter} has one strength for all frames; only a MotionLoRA's may differ between them.")


def _set(root: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(root.get_submodule(parent), name, layer)


def _check(adapter: LoraAdapter, layers: Mapping[str, nn.Module]) -> None:
    """Raise `MismatchError`, before anything is touched, unless every update has its layer, of its size."""
    missing = [path for path in adapter.weights if path not in layers]
    if missing:
        mid = all(path.startswith("mid_block.motion_modules") for path in missing)
        why = " It was trained for a v2 module, whose mid block moves; use it with one." if mid else ""
        raise MismatchError(
            f"{adapter} has {len(missing)} of {len(adapter.weights)} updates for layers that are not here, first "
            f"{missing[0]}.{why}"
        )
    for path, (down, up) in adapter.weights.items():
        layer = layers[path]
        weight = layer.get_base_layer().weight if isinstance(layer, LoraLayer) else getattr(layer, "weight", None)
        if not isinstance(weight, torch.Tensor) or (up.shape[0], down.shape[1]) != tuple(weight.shape[:2]):
            size = tuple(weight.shape) if isinstance(weight, torch.Tensor) else "no weight"
            raise MismatchError(
                f"{adapter} updates {path} by {(up.shape[0], down.shape[1])}, but the layer has {size}."
            )
