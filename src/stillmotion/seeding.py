"""Randomness as a function of (seed, purpose, index), never of what ran before.

So a seed alone equals that seed in a batch, a longer clip begins with the same noise, a resumed training equals the
uninterrupted one, and no generator's state is ever saved.
"""

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor


def derive(seed: int, purpose: str, index: int = 0) -> int:
    """Return a 63-bit seed for the `index`-th draw of `purpose` under the run's `seed` (any Python integer)."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """Return a fresh CPU generator for that draw: the same numbers on every device."""
    return torch.Generator().manual_seed(derive(seed, purpose, index))


def frame_noise(
    seed: int, frames: range, shape: tuple[int, int, int], purpose: str = "latents"
) -> Float[Tensor, "1 channels frames height width"]:
    """Return unit noise in clip layout, each frame drawn from (seed, its number), `shape` being (channels, height, width)."""
    drawn = [torch.randn(shape, generator=generator(seed, purpose, frame)) for frame in frames]
    return torch.stack(drawn, dim=1).unsqueeze(0)
