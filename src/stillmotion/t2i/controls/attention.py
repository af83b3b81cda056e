"""Attention to pictures within a UNet: diffusers' layers of IP-Adapters, put in for one forward at a time."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import ImageProjection
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from stillmotion.errors import MismatchError
from stillmotion.turns import place_of

Parts = Mapping[str, Mapping[str, Tensor]]
"""An IP-Adapter's weights as diffusers reads them: "image_proj" and "ip_adapter"."""


@dataclass(frozen=True, eq=False)
class Layers:
    """The layers of one IP-Adapter, made by diffusers and shared by whatever is put into the UNet."""

    projection: nn.Module
    """Features of a picture in, tokens for the UNet out."""
    processors: Mapping[str, IPAdapterAttnProcessor2_0]
    """Keys and values of these tokens, by the name of the attention's processor in the UNet."""
    image_width: int
    """Width of the features of a picture."""

    @classmethod
    def made(cls, parts: Parts, unet: UNet2DConditionModel) -> "Layers":
        """Return the layers for this UNet, in its dtype and place; the UNet stays as it is.

        Raises:
            KeyError, RuntimeError, ValueError: As diffusers does for weights that do not fit.
        """
        made = unet._convert_ip_adapter_attn_to_diffusers([parts], low_cpu_mem_usage=False)  # noqa: SLF001
        count = sum(isinstance(processor, IPAdapterAttnProcessor2_0) for processor in made.values())
        found = sum(name.endswith("to_k_ip.weight") for name in parts["ip_adapter"])
        if found != count:
            raise ValueError(f"it has {found} layers of attention, the UNet has {count}")
        projection = unet._convert_ip_adapter_image_proj_to_diffusers(parts["image_proj"], low_cpu_mem_usage=False)  # noqa: SLF001
        processors = {name: each for name, each in made.items() if isinstance(each, IPAdapterAttnProcessor2_0)}
        for layers in (projection, *processors.values()):
            layers.eval().requires_grad_(requires_grad=False).to(unet.device, unet.dtype)
        weight = parts["image_proj"].get("proj.weight", parts["image_proj"].get("proj_in.weight"))
        if weight is None:
            weight = parts["image_proj"]["proj.0.weight"]
        return cls(projection, processors, weight.shape[1])

    @property
    def plain(self) -> bool:
        """Return whether it takes one feature vector of a picture, and not CLIP's features of its patches."""
        return isinstance(self.projection, ImageProjection)

    @torch.no_grad()
    def project(self, features: Tensor) -> Tensor:
        """Return the tokens of pictures, shape (pictures, tokens, width)."""
        weight = next(self.projection.parameters())
        return self.projection(features.to(place_of(self.projection), weight.dtype))


class Insertion:
    """What puts layers into a UNet for each forward that has pictures, and takes them out after it."""

    _everywhere: ClassVar[WeakKeyDictionary[UNet2DConditionModel, "Insertion"]] = WeakKeyDictionary()

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self._unet = unet
        self._expected: dict[int, tuple[Tensor, Layers, int | float]] = {}
        self._before: tuple[dict[str, Any], Any, Any] | None = None
        self._holders = 0
        self._handles: list[RemovableHandle] = []

    @classmethod
    def at_work(cls, unet: UNet2DConditionModel) -> "Insertion | None":
        """Return what is at work in this UNet now."""
        return cls._everywhere.get(unet)

    def expect(self, tokens: Tensor, layers: Layers, strength: int | float) -> None:
        """Say whose tokens these are, which the next forward is given, and how strong they are."""
        self._expected[id(tokens)] = (tokens, layers, strength)

    def hold(self) -> None:
        """Begin to watch the UNet's forwards, unless that is done already."""
        self._holders += 1
        if self._holders == 1:
            self._everywhere[self._unet] = self
            self._handles = [
                self._unet.register_forward_pre_hook(self._put_in, with_kwargs=True),
                self._unet.register_forward_hook(self._take_out, always_call=True),
            ]

    def release(self) -> None:
        """End it, when the last who holds it does."""
        self._holders -= 1
        if not self._holders:
            for handle in self._handles:
                handle.remove()
            self._expected.clear()
            del self._everywhere[self._unet]

    def _put_in(self, unet: UNet2DConditionModel, _: tuple[Any, ...], arguments: dict[str, Any]) -> None:
        given = (arguments.get("added_cond_kwargs") or {}).get("image_embeds") or []
        expected, self._expected = self._expected, {}
        known = [expected[id(tokens)] for tokens in given if id(tokens) in expected]
        if not known:
            return
        if len(known) != len(given):
            raise MismatchError("Pictures of an IP-Adapter that was loaded otherwise cannot be mixed with controls.")
        self._before = unet.attn_processors, unet.encoder_hid_proj, unet.config.encoder_hid_dim_type
        unet.set_attn_processor(self._before[0] | _together(known))
        unet.encoder_hid_proj = nn.Identity()  # the tokens are what diffusers' own projection made
        unet.config.encoder_hid_dim_type = "ip_image_proj"

    def _take_out(self, unet: UNet2DConditionModel, *_: Any) -> None:
        if self._before is not None:
            processors, projection, kind = self._before
            unet.set_attn_processor(processors)
            del unet.encoder_hid_proj  # None is then what it was: no module
            unet.encoder_hid_proj = projection
            unet.config.encoder_hid_dim_type = kind
            self._before = None


@contextmanager
def insertion_of(unet: UNet2DConditionModel) -> Iterator[None]:
    """Let IP-Adapters act in this UNet; any number of holders share one."""
    insertion = Insertion.at_work(unet) or Insertion(unet)
    insertion.hold()
    try:
        yield
    finally:
        insertion.release()


def _together(known: list[tuple[Tensor, Layers, int | float]]) -> dict[str, IPAdapterAttnProcessor2_0]:
    """Return one processor per attention for all pictures at once, the layers in it shared, not copied."""
    found = {}
    for name, first in known[0][1].processors.items():
        with torch.device("meta"):
            processor = IPAdapterAttnProcessor2_0(
                first.hidden_size,
                first.cross_attention_dim,
                num_tokens=[tokens.shape[2] for tokens, _, _ in known],
                scale=[strength for _, _, strength in known],
            )
        processor.to_k_ip = nn.ModuleList([layers.processors[name].to_k_ip[0] for _, layers, _ in known])
        processor.to_v_ip = nn.ModuleList([layers.processors[name].to_v_ip[0] for _, layers, _ in known])
        found[name] = processor
    return found
