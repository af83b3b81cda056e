"""Pictures and videos of a job made into what the denoiser takes: controls, and latents to begin with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from stillmotion.animate.config import AnimateConfig
from stillmotion.animate.inputs import PlannedControl, Shot, Start
from stillmotion.data import Footage, canny
from stillmotion.data.conditions.pictures import Ground
from stillmotion.errors import StillmotionError
from stillmotion.sampling import Control
from stillmotion.t2i import T2I
from stillmotion.t2i.controls import ControlModel
from stillmotion.t2i.depth import DepthModel

Pixels = Float[Tensor, "frames 3 height width"]
Latents = Float[Tensor, "1 channels frames rows columns"]

_WIDEST = 1024  # pixels: what an image encoder sees is far smaller


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedControl:
    """A control that acts, and the models that it needs."""

    planned: PlannedControl
    """What it is, and the pictures that it is set on."""
    model: ControlModel
    """The control model."""
    depth: DepthModel | None = None
    """What its pictures go through first, if that is a model."""

    def on_clip(self, width: int, height: int) -> Control:
        """Return the control set on its pictures, at the clip's size."""
        file, planned = self.planned.file, self.planned
        condition = self._condition(width, height)
        dose = {"strength": file.strength, "start": file.start, "end": file.end}
        return self.model.on(condition, **dose, indices=planned.indices)

    def _condition(self, width: int, height: int) -> Pixels:
        """Return the pictures in [0, 1], through the preprocessor; those for an image encoder keep their own shape."""
        shots = self.planned.shots
        size = _own_size(shots[0]) if self.planned.kind == "ip_adapter" else (width, height)
        pixels = (
            torch.cat([shot.footage.fitted(shot.places, *size, ground=self.planned.ground) for shot in shots]) + 1
        ) / 2
        if self.depth is not None:
            return self.depth(_bytes(pixels))
        if self.planned.file.preprocessor == "canny":
            return torch.from_numpy(canny(_bytes(pixels))).permute(0, 3, 1, 2).float() / 255
        return pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class Steered:
    """What a job's clips have in common beside the models."""

    controls: tuple[Control, ...] = ()
    """What steers every prediction."""
    start: Latents | None = None
    """The clean latents that the frames are drawn from; None where they begin in noise."""


def steer(
    config: AnimateConfig, controls: Sequence[LoadedControl], start: Start | None, t2i: T2I, chunk: int
) -> Steered:
    """Read what a job reads, at the size that `config` has settled; the VAE encodes `chunk` frames at once.

    Raises `FileError` where a frame is damaged, `MismatchError` where a control does not fit.
    """
    width, height = config.width or t2i.native_size, config.height or t2i.native_size
    return Steered(
        controls=tuple(control.on_clip(width, height) for control in controls),
        start=latents_of_start(start, t2i, width, height, config.num_frames, chunk) if start else None,
    )


def latents_of_start(start: Start, t2i: T2I, width: int, height: int, num_frames: int, chunk: int) -> Latents:
    """Return the clean latents that the frames of a clip are drawn from, `chunk` frames encoded at once.

    Between a first and a last picture frame i of n has i / (n - 1) of the last one's latents. With a video they stand
    for its first and last frame.
    """

    def encoded(footage: Footage, places: Sequence[int], ground: Ground) -> Tensor:
        parts = [places[at : at + chunk] for at in range(0, len(places), chunk)]
        shots = (footage.fitted(part, width, height, ground=ground) for part in parts)
        return torch.cat([encode(t2i, pixels) for pixels in shots])

    first, last = (encoded(one, (0,), "white") if one else None for one in (start.first, start.last))
    if start.video is not None:
        frames = encoded(start.video.footage, start.video.places, "white")
        if first is not None:
            frames[:1] = first
        if last is not None:
            frames[-1:] = last
    else:
        ends = [end for end in (first, last) if end is not None]
        share = torch.linspace(0, 1, num_frames).view(-1, 1, 1, 1).to(ends[0])
        frames = torch.lerp(ends[0], ends[-1], share)
    return frames.transpose(0, 1).unsqueeze(0)


def encode(t2i: T2I, pixels: Pixels) -> Float[Tensor, "frames channels rows columns"]:
    """Return the latents of pictures in [-1, 1]; half precision that overflows in the VAE is encoded again in float32."""
    latents, dtype = t2i.encode_images(pixels), t2i.vae.dtype
    if not bool(torch.isfinite(latents).all()) and dtype is not torch.float32:
        try:
            nn.Module.to(t2i.vae, torch.float32)  # diffusers' own `to` warns of every cast
            latents = t2i.encode_images(pixels)
        finally:
            nn.Module.to(t2i.vae, dtype)
    if not bool(torch.isfinite(latents).all()):
        raise StillmotionError("The VAE gave latents that are not finite; try another VAE or dtype float32.")
    return latents.float()


def _own_size(shot: Shot) -> tuple[int, int]:
    """Return width and height of the first picture, made smaller where they are beyond all use."""
    frame = next(iter(shot.footage.read(shot.places[:1])))
    height, width = frame.shape[:2]
    scale = min(1.0, _WIDEST / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _bytes(pixels: Pixels) -> np.ndarray:
    return (pixels * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
