"""CLIP's image encoder, through which IP-Adapters see pictures."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

from stillmotion.errors import FileError
from stillmotion.t2i.controls.model import Pictures
from stillmotion.t2i.models import T2I
from stillmotion.turns import place_of


def load_image_encoder(folder: Path, t2i: T2I) -> CLIPVisionModelWithProjection:
    """Return the encoder of a folder of transformers, in the image model's dtype and place.

    Raises:
        FileError: The folder holds none, or weights are missing.
    """
    try:
        encoder, info = CLIPVisionModelWithProjection.from_pretrained(
            str(folder), local_files_only=True, output_loading_info=True, dtype=t2i.unet.dtype
        )
    except Exception as error:  # The library raises many kinds for a damaged file or config.
        reason = str(error).strip().splitlines()
        raise FileError(
            f"image_encoder: {folder} cannot be loaded as a CLIP image encoder ({reason[0] if reason else error!r})."
        ) from error
    if lost := info["missing_keys"]:
        raise FileError(
            f"image_encoder: {folder} lacks {len(lost)} weights of a CLIP image encoder with projection, first "
            f"{min(map(str, lost))}; use the one that the IP-Adapter was made for."
        )
    return nn.Module.to(encoder, device=t2i.unet.device).eval().requires_grad_(requires_grad=False)


def seen_by_clip(pictures: Pictures, encoder: CLIPVisionModelWithProjection) -> Float[Tensor, "pictures 3 side side"]:
    """Return pictures as CLIP takes them: 8 bit, the middle square, at its size, of its mean and spread."""
    size = encoder.config.image_size
    prepare = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    bytes_ = (pictures.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    pixels = prepare(list(bytes_), return_tensors="pt").pixel_values
    return pixels.to(place_of(encoder), encoder.dtype)
