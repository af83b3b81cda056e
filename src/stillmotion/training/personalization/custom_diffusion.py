"""Custom Diffusion (Kumari et al. 2023): new keys and values of cross-attention, by diffusers' own processors.

What the first token of a prompt says does not train them, as in the paper's code.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import CustomDiffusionAttnProcessor2_0
from torch import Tensor, nn

_TRAINED = {"to_k": "to_k_custom_diffusion", "to_v": "to_v_custom_diffusion"}
_QUERIES = {"to_q": "to_q_custom_diffusion", "to_out.0": "to_out_custom_diffusion.0"}


@dataclass(frozen=True)
class NewAttention:
    """Processors at work in a UNet."""

    module: nn.ModuleDict
    """Holds the new weights."""
    processors: dict[str, CustomDiffusionAttnProcessor2_0]
    """By the path that diffusers calls them by, of cross-attention."""
    others: tuple[str, ...]
    """The paths of all other attention."""

    def tensors(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return the weights as diffusers names them, `….attn2.processor.to_k_custom_diffusion.weight`."""
        return {
            f"{path}.{name}": value.detach().cpu().to(dtype)
            for path, processor in self.processors.items()
            for name, value in processor.state_dict().items()
        }

    def whole(self, dtype: torch.dtype) -> dict[str, Any]:
        """Return the same with nothing said of all other attention, as diffusers' loader counts on in a pickle."""
        return {**self.tensors(dtype), **{path: {} for path in self.others}}


@contextmanager
def new_attention(unet: UNet2DConditionModel, *, queries: bool) -> Iterator[NewAttention]:
    """Let cross-attention compute with copies of its weights, to be trained; afterwards the UNet is what it was."""
    before = dict(unet.attn_processors)
    names = _TRAINED | (_QUERIES if queries else {})
    made: dict[str, CustomDiffusionAttnProcessor2_0] = {}
    for path in before:
        attention: Any = unet.get_submodule(path.removesuffix(".processor"))
        if not attention.is_cross_attention:
            continue
        made[path] = CustomDiffusionAttnProcessor2_0(
            train_kv=True,
            train_q_out=queries,
            hidden_size=attention.to_k.out_features,
            cross_attention_dim=attention.to_k.in_features,
        ).to(unet.device)
        for own, new in names.items():
            source, target = attention.get_submodule(own), made[path].get_submodule(new)
            with torch.no_grad():
                for name, value in target.named_parameters():
                    value.copy_(source.get_parameter(name))
    unet.set_attn_processor({**before, **made})
    try:
        module = nn.ModuleDict({path.replace(".", "/"): processor for path, processor in made.items()})
        yield NewAttention(module, made, tuple(path for path in before if path not in made))
    finally:
        unet.set_attn_processor(before)
