"""FreeInit: a clip's own slow parts as the next attempt's noise (Wu et al. 2023, arXiv 2312.07537).

A clip that was sampled once is noised again; the low frequencies of that, over time and space, are kept and the high ones
drawn anew. What the frames have in common is then in the noise already, as it was in training.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, fft

from stillmotion.errors import ConfigError
from stillmotion.sampling.names import FilterName

Latents = Float[Tensor, "batch channels frames height width"]
_CLIP = (-3, -2, -1)  # frames, height, width


def low_pass(
    size: Sequence[int], kind: FilterName = "butterworth", spatial: float = 0.25, temporal: float = 0.25, order: int = 4
) -> Float[Tensor, "frames height width"]:
    """Return what is kept of each frequency, from 0 to 1, with frequency zero in the middle (as `fftshift` puts it).

    Args:
        size: (frames, height, width) of the latents.
        kind: `gaussian` and `butterworth` fall off softly, `ideal` is a ball, `box` a box.
        spatial: Where it ends, as a share of the highest frequency in space (d_s of the paper); 0 keeps nothing.
        temporal: The same in time (d_t).
        order: How steeply a Butterworth filter falls.
    """
    for name, stop in (("spatial", spatial), ("temporal", temporal)):
        if not 0 <= stop <= 1:
            raise ConfigError(f"freeinit_{name}: expected a number from 0 to 1, got {stop}")
    if not spatial or not temporal:
        return torch.zeros(*size)
    frames, height, width = (2 * torch.arange(n, dtype=torch.float64) / n - 1 for n in size)
    if kind == "box":
        # The reference's own rounding; its box is open at the upper end.
        inside = [_within(n, stop) for n, stop in zip(size, (temporal, spatial, spatial), strict=True)]
        return (inside[0].view(-1, 1, 1) & inside[1].view(1, -1, 1) & inside[2].view(1, 1, -1)).float()
    distance = (spatial / temporal * frames).square().view(-1, 1, 1) + height.square().view(1, -1, 1) + width.square()
    if kind == "butterworth":
        return (1 / (1 + (distance / spatial**2) ** order)).float()
    if kind == "gaussian":
        return torch.exp(-distance / (2 * spatial**2)).float()
    return (distance <= 2 * spatial).float()


def remix(noised: Latents, fresh: Latents, kept: Float[Tensor, "frames height width"]) -> Latents:
    """Return latents whose low frequencies are those of `noised`, and the rest those of `fresh` noise."""
    share = fft.ifftshift(kept.to(noised.device), dim=_CLIP)
    mixed = [
        # A clip and a channel at a time: the spectrum of a long clip takes four times its latents.
        fft.ifftn(
            fft.fftn(old.float(), dim=_CLIP) * share + fft.fftn(new.float(), dim=_CLIP) * (1 - share), dim=_CLIP
        ).real
        for old, new in zip(noised.flatten(0, 1), fresh.flatten(0, 1), strict=True)
    ]
    return torch.stack(mixed).view(noised.shape).to(noised.dtype)


def _within(count: int, stop: float) -> Tensor:
    half = round(count // 2 * stop)
    places = torch.arange(count)
    return (places >= count // 2 - half) & (places < count // 2 + half)
