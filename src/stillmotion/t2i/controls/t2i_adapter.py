"""T2I-Adapter (Mou et al. 2023): features of a picture alone, computed once, added within the UNet's way down."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import diffusers
from torch import Tensor, nn

from stillmotion.errors import FileError, MismatchError
from stillmotion.sampling.control import Images, Moment, Rows, Steering
from stillmotion.t2i.controls.controlnet import from_config, require_size
from stillmotion.t2i.controls.model import ControlModel, Dose, Dosed, Kind, Pictures, rows_for
from stillmotion.t2i.controls.weights import FAMILY_NAMES, ControlWeights
from stillmotion.t2i.filling import filled
from stillmotion.t2i.models import T2I
from stillmotion.turns import place_of

_UNSHUFFLED = {64: (1, 8), 192: (3, 8), 256: (1, 16), 768: (3, 16)}
"""Channels of a picture and pixels along a side that are laid into channels, by the channels that come of it."""

_XL = "full_adapter_xl"

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow makes a picture grey


class T2IAdapter(ControlModel):
    """A T2I-Adapter: full, light, or full for Stable Diffusion XL.

    What it adds depends on the picture alone, not on the step, the text or the noise.
    """

    kind: ClassVar[Kind] = "t2i_adapter"

    def __init__(self, net: diffusers.T2IAdapter, weights: ControlWeights, variant: str | None = None) -> None:
        super().__init__(weights.path, [weights.file], variant)
        self.net = net

    @classmethod
    def load(cls, weights: ControlWeights, t2i: T2I) -> "T2IAdapter":
        """Return the adapter of a file or folder, in the image model's dtype and place.

        Raises:
            FileError: The config is no T2I-Adapter's.
            MismatchError: It was made for another family of image models, or its weights are not whole.
        """
        tensors = _named_as_today(weights.tensors)
        config = dict(weights.config) or _config(tensors, weights)
        family, wanted = "sdxl" if config.get("adapter_type") == _XL else "sd15", "sdxl" if t2i.is_xl else "sd15"
        if family != wanted:
            raise MismatchError(
                f"{weights.path} is a T2I-Adapter for {FAMILY_NAMES[family]}; {t2i.source} is {FAMILY_NAMES[wanted]}. Use "
                "one that was made for it."
            )
        net = from_config(diffusers.T2IAdapter, config, weights)
        net = filled(net, tensors, {}, str(weights.path), "the T2I-Adapter is not whole, or of a kind not known here")
        channels = tuple(net.config.channels)
        if net.config.adapter_type == "light_adapter":
            channels = (*channels, channels[-1])
        levels = tuple(t2i.unet.config.block_out_channels)
        if channels != (levels if family == "sd15" else (*levels, levels[-1])):  # the mid block is another of XL's
            raise MismatchError(
                f"{weights.path} is a T2I-Adapter for UNets of widths {channels}; that of {t2i.source} has "
                f"{levels}. Use one that was made for this model."
            )
        net = nn.Module.to(net, device=t2i.unet.device, dtype=t2i.unet.dtype)
        return cls(net.eval().requires_grad_(requires_grad=False), weights, family)

    @property
    def at_first(self) -> Sequence[nn.Module]:
        """Return the net, which sees the pictures once."""
        return (self.net,)

    def control(self, condition: Pictures, dose: Dose, indices: Sequence[int] | None) -> Dosed:  # noqa: ARG002
        """Return the control that one picture for all frames, or one for each, makes."""
        return _Steered(self, condition, dose)

    def features(self, condition: Pictures) -> list[Tensor]:
        """Return the features of the pictures for every block of the way down, one row per picture."""
        seen = condition.to(place_of(self.net), self.net.dtype)
        if self.net.config.in_channels == 1:
            seen = (seen * seen.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)
        return list(self.net(seen))


class _Steered(Dosed):
    """A T2I-Adapter on its pictures."""

    def __init__(self, model: T2IAdapter, condition: Pictures, dose: Dose) -> None:
        super().__init__(dose)
        self.model, self.condition = model, condition
        self.features: list[Tensor] = []

    def steer(self, images: Images, timesteps: Tensor, text: Rows, moment: Moment) -> Steering:  # noqa: ARG002
        if not self.features:
            self.features = [each * self.dose.strength for each in self.model.features(self.condition)]
        first = images[..., ::2, ::2] if self.model.variant == "sdxl" else images  # whose finest block is the second
        require_size(self.features[0], first, self.condition, self.model)
        return Steering(within=tuple(rows_for(each, images, moment) for each in self.features))


def _named_as_today(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an adapter's weights under diffusers' names, whatever they bore.

    The original numbers the ResNets of the full adapter through, two to a block, and calls those of a light one `body`.
    """
    plain = {name.removeprefix("adapter."): value for name, value in tensors.items()}
    light = "body.0.in_conv.weight" in plain
    if any(".resnets." in name for name in plain):
        renamed = plain
    elif light:
        renamed = {re.sub(r"^(body\.\d+)\.body\.", r"\1.resnets.", name): value for name, value in plain.items()}
    else:
        renamed = {re.sub(r"^body\.(\d+)\.(\w+)", _in_its_block, name): value for name, value in plain.items()}
    return {f"adapter.{name}": value for name, value in renamed.items()}


def _in_its_block(found: re.Match[str]) -> str:
    block, resnet = divmod(int(found[1]), 2)
    return f"body.{block}.{found[2]}" if found[2] == "in_conv" else f"body.{block}.resnets.{resnet}.{found[2]}"


def _config(tensors: Mapping[str, Tensor], weights: ControlWeights) -> dict[str, Any]:
    """Return the config of an adapter whose weights have diffusers' names; raise `FileError` where they do not tell."""
    full = "adapter.conv_in.weight" in tensors
    end = "resnets.0.block1.weight" if full else "out_conv.weight"
    channels: list[int] = []
    while (layer := f"adapter.body.{len(channels)}.{end}") in tensors:
        channels.append(tensors[layer].shape[0])
    entrance = tensors.get("adapter.conv_in.weight" if full else "adapter.body.0.in_conv.weight")
    if entrance is None or entrance.shape[1] not in _UNSHUFFLED or not channels:
        raise FileError(f"{weights.path} holds part of a T2I-Adapter only, or one of a kind that is not known here.")
    in_channels, factor = _UNSHUFFLED[entrance.shape[1]]
    resnets = 0
    while f"adapter.body.0.resnets.{resnets}.block1.weight" in tensors:
        resnets += 1
    kind = ("full_adapter" if factor == 8 else _XL) if full else "light_adapter"
    return {
        "in_channels": in_channels,
        "channels": channels if full else channels[:-1],
        "num_res_blocks": resnets,
        "downscale_factor": factor,
        "adapter_type": kind,
    }
