"""ControlNet (Zhang et al. 2023): a copy of the UNet's way down that sees a picture, and adds to the skip connections."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import ControlNetModel
from torch import Tensor, nn

from stillmotion.errors import FileError, MismatchError
from stillmotion.sampling.control import Images, Moment, Rows, Steering
from stillmotion.t2i.controls.geometry import controlnet_config, original_controlnet_config
from stillmotion.t2i.controls.model import ControlModel, Dose, Dosed, Kind, Pictures, rows_for
from stillmotion.t2i.controls.weights import FAMILIES, FAMILY_NAMES, ControlWeights
from stillmotion.t2i.filling import filled
from stillmotion.t2i.models import T2I
from stillmotion.t2i.original_names import controlnet_layers
from stillmotion.turns import place_of


class ControlNet(ControlModel):
    """A ControlNet. Each frame is steered by its own picture; motion is in the UNet alone."""

    kind: ClassVar[Kind] = "controlnet"

    def __init__(self, net: ControlNetModel, weights: ControlWeights, variant: str | None = None) -> None:
        super().__init__(weights.path, [weights.file], variant)
        # What the picture is made into depends on no step, so it is computed apart, once.
        self.embedding = net.controlnet_cond_embedding
        self.flipped = net.config.controlnet_conditioning_channel_order == "bgr"
        net.controlnet_cond_embedding = nn.Identity()
        net.register_to_config(controlnet_conditioning_channel_order="rgb")
        self.net = net

    @classmethod
    def load(cls, weights: ControlWeights, t2i: T2I) -> "ControlNet":
        """Return the ControlNet of a file or folder, in the image model's dtype and place.

        Raises:
            MismatchError: It was made for another family of image models, or its weights are not whole.
        """
        family = require_family(weights, text_width(weights.tensors), t2i, "a ControlNet")
        net = make_net(weights)
        if tuple(net.config.block_out_channels) != tuple(t2i.unet.config.block_out_channels):
            raise MismatchError(
                f"{weights.path} is a ControlNet for UNets of widths {tuple(net.config.block_out_channels)}; that of "
                f"{t2i.source} has {tuple(t2i.unet.config.block_out_channels)}. Use one that was made for this model."
            )
        net = nn.Module.to(net, device=t2i.unet.device, dtype=t2i.unet.dtype)
        return cls(net.eval().requires_grad_(requires_grad=False), weights, family)

    @property
    def at_each_step(self) -> Sequence[nn.Module]:
        """Return the net, and what makes the pictures into what it takes."""
        return (self.net, self.embedding)

    def control(self, condition: Pictures, dose: Dose, indices: Sequence[int] | None) -> Dosed:  # noqa: ARG002
        """Return the control that one picture for all frames, or one for each, makes."""
        return _Steered(self, condition, dose)

    def embedded(self, condition: Pictures) -> Tensor:
        """Return what the pictures are to the net: features of the latents' size, one row per picture."""
        seen = condition.to(place_of(self.net), self.net.dtype)
        return self.embedding(seen.flip(1) if self.flipped else seen)


class _Steered(Dosed):
    """A ControlNet on its pictures."""

    def __init__(self, model: ControlNet, condition: Pictures, dose: Dose) -> None:
        super().__init__(dose)
        self.model, self.condition = model, condition
        self.embedded: Tensor | None = None

    def steer(self, images: Images, timesteps: Tensor, text: Rows, moment: Moment) -> Steering:
        if self.embedded is None:
            self.embedded = self.model.embedded(self.condition)
        require_size(self.embedded, images, self.condition, self.model)
        down, mid = self.model.net(
            images,
            timesteps,
            encoder_hidden_states=text,
            controlnet_cond=rows_for(self.embedded, images, moment),
            conditioning_scale=self.dose.strength,
            return_dict=False,
            **moment.beside,
        )
        return Steering(down=tuple(down), mid=mid)


def make_net(weights: ControlWeights) -> ControlNetModel:
    """Return the ControlNet of weights in original or diffusers' names, as stored.

    Raises:
        FileError: The config is no ControlNet's.
        MismatchError: Weights are missing, or too many.
    """
    tensors, path = weights.tensors, weights.path
    if "difference" in tensors:
        raise MismatchError(
            f"{path} holds the difference of a ControlNet to Stable Diffusion, not a ControlNet; use the whole one."
        )
    original = any(name.startswith("input_hint_block.") for name in tensors)
    try:
        config = dict(weights.config) or (original_controlnet_config if original else controlnet_config)(tensors)
    except KeyError as error:
        raise MismatchError(f"{path} has no weight {error.args[0]!r}: the ControlNet is not whole.") from error
    net = from_config(ControlNetModel, config, weights)
    names = controlnet_layers(net) if original else {}
    return filled(net, tensors, names, str(path), "the ControlNet is not whole, or of a kind that is not known here")


def from_config(model: Any, config: dict[str, Any], weights: ControlWeights) -> Any:
    """Return a diffusers model without weights, on the `meta` device; raise `FileError` for a config that is not its own."""
    try:
        with torch.device("meta"):
            return model.from_config(config)
    except (TypeError, ValueError, KeyError) as error:
        raise FileError(f"{weights.path / 'config.json'} is not a {model.__name__}'s ({error}).") from error


def text_width(tensors: Any) -> int | None:
    """Return the width of the text features that a net attends to."""
    return next((value.shape[1] for name, value in tensors.items() if name.endswith("attn2.to_k.weight")), None)


def require_family(weights: ControlWeights, width: int | None, t2i: T2I, what: str) -> str | None:
    """Return the family of image models that a control was made for; raise `MismatchError` if it is not the model's."""
    wanted = t2i.unet.config.cross_attention_dim
    if width is not None and width == wanted:
        return FAMILIES.get(width)
    made = FAMILIES.get(width) if width is not None else None
    name = f"for {FAMILY_NAMES[made]}" if made else f"for text features of width {width}"
    model = FAMILY_NAMES.get(FAMILIES.get(wanted, ""), "a model")
    raise MismatchError(
        f"{weights.path} is {what} {name}; {t2i.source} is {model}, whose text features have width {wanted}. Use one "
        "that was made for it."
    )


def require_size(rows: Tensor, images: Tensor, condition: Tensor, model: ControlModel) -> None:
    """Raise `MismatchError` unless features of pictures are as high and wide as the latents."""
    if rows.shape[-2:] != images.shape[-2:]:
        factors = [picture / feature for picture, feature in zip(condition.shape[-2:], rows.shape[-2:], strict=True)]
        high, wide = (round(size * factor) for size, factor in zip(images.shape[-2:], factors, strict=True))
        raise MismatchError(
            f"{model}: its pictures are {condition.shape[-1]}x{condition.shape[-2]}, the clip is {wide}x{high}; give "
            "pictures of the clip's size."
        )
