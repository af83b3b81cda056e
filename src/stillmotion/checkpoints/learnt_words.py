"""Files that teach an image model a subject through words: textual inversions, and Custom Diffusion weights with theirs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

_PARAM = "string_to_param."
_UNNAMED = ("emb_params", "*")
_SDXL = ("clip_l", "clip_g")
_CUSTOM = re.compile(
    r".+\.processor\.to_(?:[qkv]|out)_custom_diffusion(?:\.0)?\.(?:weight|bias)"  # diffusers
    r"|(?:model\.diffusion_model\.|unet\.)?.+\.attn2\.to_(?:[qkv]|out\.0)\.(?:weight|bias)(?:\.[uv])?"  # the reference
)
_MODIFIER = "modifier_token."


@dataclass(frozen=True, kw_only=True)
class WordVectors:
    """The words of a file."""

    words: tuple[str, ...]
    """The names stored in it; A1111's files store one in their metadata, or none."""
    num_vectors: int
    """How many vectors they have together."""
    width: int
    """Of each vector; for SDXL, which has two encoders, of the first."""
    is_sdxl: bool = False


def textual_inversion(tensors: Mapping[str, Tensor], widths: Mapping[int, str]) -> WordVectors | None:
    """Return the words of a textual inversion; None where the tensors are none.

    A file of one vector that says nothing of itself is one if its width is among the `widths` of text encoders.
    """
    own = {name: value for name, value in tensors.items() if not name.startswith("string_to_token.")}
    if not own or any(value.ndim not in (1, 2) for value in own.values()):
        return None
    is_sdxl = own.keys() <= set(_SDXL)
    is_named = all(name.startswith("<") and name.endswith(">") for name in own)
    is_marked = own.keys() <= {"emb_params"} or all(name.startswith(_PARAM) for name in own)
    is_alone = len(own) == 1 and next(iter(own.values())).shape[-1] in widths
    if not (is_sdxl or is_named or is_marked or is_alone):
        return None
    counted = [own["clip_l"]] if "clip_l" in own else list(own.values())
    names = [name.removeprefix(_PARAM) for name in own] if not is_sdxl else []
    return WordVectors(
        words=tuple(name for name in names if name not in _UNNAMED),
        num_vectors=sum(len(value) if value.ndim == 2 else 1 for value in counted),
        width=counted[0].shape[-1],
        is_sdxl=is_sdxl,
    )


def is_custom_diffusion(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether the tensors are Custom Diffusion weights: layers that read the text, whole, and hardly more."""
    layers = [name for name in tensors if _CUSTOM.fullmatch(name)]
    others = [name for name in tensors if not _CUSTOM.fullmatch(name)]
    return bool(layers) and all(name == "embed" or name.startswith((_MODIFIER, "text_encoder.")) for name in others)


def custom_words(tensors: Mapping[str, Tensor]) -> WordVectors | None:
    """Return the words beside Custom Diffusion weights in one file; None where there are none."""
    embed = tensors.get("embed")
    if embed is not None and embed.ndim == 2:
        words = tuple(f"<new{number + 1}>" for number in range(len(embed)))
        return WordVectors(words=words, num_vectors=len(embed), width=embed.shape[-1])
    own = {name.removeprefix(_MODIFIER): value for name, value in tensors.items() if name.startswith(_MODIFIER)}
    if not own:
        return None
    count = sum(len(value) if value.ndim == 2 else 1 for value in own.values())
    return WordVectors(words=tuple(own), num_vectors=count, width=next(iter(own.values())).shape[-1])
