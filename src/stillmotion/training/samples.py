"""Sample clips made on the way, to be looked at: what the training does to a picture."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from stillmotion.data import contact_sheet, write_clip
from stillmotion.sampling import Denoiser, Guidance, make_sampler, sample
from stillmotion.shapes import fold_frames
from stillmotion.t2i import T2I

Pictures = UInt8[np.ndarray, "frames height width 3"]
Autocast = Callable[[], AbstractContextManager[object]]

_STEPS, _SCALE, _FPS = 20, 7.5, 8


def latent_shape(t2i: T2I, width: int, height: int) -> tuple[int, int, int]:
    """Return channels, rows and columns of the latents of a picture of so many pixels."""
    return t2i.vae.config.latent_channels, height // t2i.scale, width // t2i.scale


def sample_clip(
    t2i: T2I,
    schedule: dict[str, Any],
    prompt: str,
    noise: Float[Tensor, "1 channels frames rows columns"],
    autocast: Autocast,
) -> Pictures:
    """Make a clip of a prompt from noise, under `autocast`."""
    empty, told = t2i.encode_text(["", prompt]).split(1)
    sampler = make_sampler("ddim", schedule, t2i.prediction_type)
    guidance = Guidance(told, empty, _SCALE)
    steps = sample(Denoiser(t2i.unet), sampler, noise.to(t2i.device), guidance, num_inference_steps=_STEPS)
    with autocast():  # what is trained is in float32, the image model perhaps not
        *_, last = steps
    pixels = torch.cat([t2i.decode(chunk) for chunk in fold_frames(last.latents).split(4)])
    return ((pixels + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def keep_sample(pictures: Pictures, folder: Path, name: str) -> Path:
    """Write a sample clip and its contact sheet; return the sheet."""
    folder.mkdir(parents=True, exist_ok=True)
    if len(pictures) > 1:
        write_clip(list(pictures), folder / f"{name}.mp4", _FPS)
    return contact_sheet(pictures, folder / f"{name}.png")
