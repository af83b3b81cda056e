"""The noise that a clip begins with: drawn per frame, and for long clips drawn for one window and used again.

Frames whose noises are related become alike, so windows that see different frames tell the same story. A longer clip
always begins with the noise of the shorter one of that seed.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from stillmotion.sampling.context import Context
from stillmotion.sampling.names import NoiseName
from stillmotion.seeding import frame_noise, generator


def clip_noise(
    seed: int,
    num_frames: int,
    shape: tuple[int, int, int],
    kind: NoiseName = "independent",
    context: Context | None = None,
) -> Float[Tensor, "1 channels frames height width"]:
    """Return unit noise for a clip of one seed, on the CPU in float32.

    Args:
        seed: Any integer.
        num_frames: How many frames the clip has.
        shape: (channels, height, width) of a frame.
        kind: `independent` draws every frame; `repeated` draws one window and repeats it; `freenoise` draws one window,
            and every further stretch of a hop is the stretch one window before it in a new order (Qiu et al. 2023,
            arXiv 2310.15169, §3.2).
        context: The windows it is for; those of `Context()` by default.
    """
    if kind == "independent":
        return frame_noise(seed, range(num_frames), shape)
    sources = noise_sources(seed, num_frames, kind, context or Context())
    drawn = frame_noise(seed, range(max(sources) + 1), shape)
    return drawn[:, :, sources]


def noise_sources(seed: int, num_frames: int, kind: NoiseName, context: Context) -> list[int]:
    """Return for every frame the number of the frame whose noise it has."""
    length, hop = context.length, context.hop
    if kind == "independent":
        return list(range(num_frames))
    if kind == "repeated":
        return [frame % length for frame in range(num_frames)]
    found = list(range(length))
    for block, start in enumerate(range(length, num_frames, hop)):
        before = found[start - length : start - length + hop]
        order = torch.randperm(hop, generator=generator(seed, "noise order", block)).tolist()
        found += [before[place] for place in order]
    return found[:num_frames]
