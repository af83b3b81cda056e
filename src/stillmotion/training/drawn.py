"""The toyworld as footage to train on: clips that are drawn when they are asked for."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8

from stillmotion.data import ClipItem
from stillmotion.seeding import generator
from stillmotion.toyworld.choreography import CLIP_FRAMES
from stillmotion.toyworld.language import MOTIONS, draw_scene
from stillmotion.toyworld.models import PICTURE_SIZE
from stillmotion.toyworld.world import draw_clips

SLOWER = 4
"""Source frames to one frame of a toyworld clip, so that a frame stride of 4 gives the world's own speed."""


class DrawnFootage:
    """`count` clips of scenes drawn at random; a function of the seed."""

    def __init__(self, count: int = 200, *, seed: int = 0, size: int = PICTURE_SIZE) -> None:
        self.name = f"the toyworld's {count} clips"
        self._seed, self._size = seed, size
        self._scenes = [draw_scene(generator(seed, "toyworld footage", i), motions=MOTIONS) for i in range(count)]

    def __len__(self) -> int:
        return len(self._scenes)

    def item(self, index: int) -> ClipItem:
        """Return the clip's name and caption."""
        return ClipItem(key=f"toyworld-{self._seed}-{index:05}", caption=self._scenes[index].caption)

    def num_frames(self, index: int) -> int:  # noqa: ARG002  # all have as many
        """Return how many source frames a clip has."""
        return (CLIP_FRAMES - 1) * SLOWER + 1

    def fps(self, index: int) -> float:  # noqa: ARG002
        """Return the rate of the source frames."""
        return 8.0 * SLOWER

    def frames(self, index: int, positions: Sequence[int]) -> UInt8[np.ndarray, "frames height width 3"]:
        """Draw those source frames."""
        times = torch.tensor([place / SLOWER for place in positions])
        drawn = draw_clips([self._scenes[index]], seed=self._seed, indices=[index], frames=times, size=self._size)
        pixels = ((drawn.pixels[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return pixels.permute(1, 2, 3, 0).numpy()

    def fingerprint(self) -> str:
        """Return a digest of all that the clips depend on."""
        told = "\n".join(scene.caption for scene in self._scenes)
        return hashlib.sha256(f"toyworld/{self._seed}/{self._size}/{told}".encode()).hexdigest()
