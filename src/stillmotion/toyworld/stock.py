"""What the toyworld's *video* data looks like beside its pictures: a stock agency's mark, and blur.

Video data is worse than picture data, and a motion module trained on it learns its look unless a domain adapter takes
that up first (paper §4.1). Here the look is known exactly, so that what is left of it can be measured.
"""

import functools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Pixels = Float[Tensor, "images 3 height width"]

# A pale band across the picture's foot with the agency's name in heavy letters: what is finer does not pass the VAE.
_TOP, _BOTTOM = 0.80, 0.95
_LETTERS = ((0.06, 0.16), (0.21, 0.36), (0.41, 0.48), (0.54, 0.69), (0.74, 0.81), (0.86, 0.94))
_BAND, _LETTER = 0.92, 0.10
OPACITY = 0.6
"""How much of the mark's own colour covers the picture."""


def as_stock_video(pixels: Pixels, opacity: float = OPACITY) -> Pixels:
    """Return pictures in [-1, 1] as frames of stock video: blurred by a few pixels, the mark laid over them."""
    size = pixels.shape[-1]
    reach = max(1, round(size / 64))
    padded = F.pad(pixels, (reach,) * 4, mode="replicate")
    soft = F.avg_pool2d(padded, 2 * reach + 1, stride=1)
    ink, cover = (plane.to(pixels) for plane in _mark(pixels.shape[-2], size))
    return torch.lerp(soft, ink * 2 - 1, cover * opacity)


def mark_strength(pixels: Pixels) -> Float[Tensor, "images"]:
    """Return how strongly the mark shows in each picture in [-1, 1]: 1 as in the video data, about 0 where there is none.

    The band's luminance is projected on the letters' pattern, of mean 0, so that a plain ground of any colour counts
    nothing.
    """
    ink, cover = (plane.to(pixels) for plane in _mark(*pixels.shape[-2:]))
    pattern = (ink - (ink * cover).sum() / cover.sum()) * cover
    luminance = (pixels.mean(1) + 1) / 2
    return (luminance * pattern).sum((1, 2)) / ((ink * pattern).sum() * OPACITY)


@functools.lru_cache(maxsize=8)
def _mark(height: int, width: int) -> tuple[Float[Tensor, "height width"], Float[Tensor, "height width"]]:
    """Return the mark's luminance and where it covers the picture, both in [0, 1]."""
    y, x = ((torch.arange(length) + 0.5) / length for length in (height, width))
    inset = 0.2 * (_BOTTOM - _TOP)
    rows = ((y > _TOP + inset) & (y < _BOTTOM - inset))[:, None]
    letters = torch.stack([(x > left) & (x < right) for left, right in _LETTERS]).any(0)[None]
    cover = ((y > _TOP) & (y < _BOTTOM))[:, None].expand(height, width).float()
    ink = torch.where(rows & letters, _LETTER, _BAND)
    return ink, cover
