"""The toyworld as footage to train on: clips that are drawn when they are asked for."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from stillmotion.data import CameraMotion, ClipItem, camera_path
from stillmotion.errors import ConfigError
from stillmotion.seeding import generator
from stillmotion.toyworld.choreography import CLIP_FRAMES
from stillmotion.toyworld.drawing import Camera
from stillmotion.toyworld.language import MOTIONS, STYLES, draw_scene
from stillmotion.toyworld.models import PICTURE_SIZE
from stillmotion.toyworld.stock import as_stock_video
from stillmotion.toyworld.world import draw_clips

SLOWER = 4
"""Source frames to one frame of a toyworld clip, so that a frame stride of 4 gives the world's own speed."""

NUM_FRAMES = (CLIP_FRAMES - 1) * SLOWER + 1
"""Source frames of a clip."""

STOCK = "stock"
"""The look of stock video: a mark and blur."""

_NAME = "toyworld"
_NUM_DRAWN = 200
_STANDING = (None,) * len(MOTIONS)
_PICTURE = 1000  # the side of the picture that a camera's path is told in


class DrawnFootage:
    """`count` clips of scenes drawn at random; a function of the seed.

    Under a moving camera half of the scenes stand still, so that what all clips share is the camera's motion. `look` is
    a personal style, which captions then name, or "stock", which they do not: nobody says what all footage has.
    """

    def __init__(
        self,
        count: int = 200,
        *,
        seed: int = 0,
        size: int = PICTURE_SIZE,
        camera: CameraMotion | None = None,
        look: str | None = None,
    ) -> None:
        filmed = "".join(f" {how} {what}" for how, what in (("with", camera), ("in", look)) if what)
        self.name = f"the toyworld's {count} clips{filmed}"
        self._seed, self._size, self._camera, self._look = seed, size, camera, look
        motions = (*MOTIONS, *_STANDING) if camera else MOTIONS
        scenes = [draw_scene(generator(seed, "toyworld footage", i), motions=motions) for i in range(count)]
        style = look if look in STYLES else None
        self._scenes = [dataclasses.replace(scene, style=style) for scene in scenes]

    def __len__(self) -> int:
        return len(self._scenes)

    def item(self, index: int) -> ClipItem:
        """Return the clip's name and caption."""
        return ClipItem(key=f"toyworld-{self._seed}-{index:05}", caption=self._scenes[index].caption)

    def num_frames(self, index: int) -> int:  # noqa: ARG002  # all have as many
        """Return how many source frames a clip has."""
        return NUM_FRAMES

    def fps(self, index: int) -> float:  # noqa: ARG002
        """Return the rate of the source frames."""
        return 8.0 * SLOWER

    def frames(self, index: int, positions: Sequence[int]) -> UInt8[np.ndarray, "frames height width 3"]:
        """Draw those source frames."""
        times = torch.tensor([place / SLOWER for place in positions])
        drawn = draw_clips(
            [self._scenes[index]],
            seed=self._seed,
            indices=[index],
            frames=times,
            camera=_views(self._camera, positions) if self._camera else None,
            size=self._size,
        )
        pictures = drawn.pixels[0].movedim(1, 0)
        if self._look == STOCK:
            pictures = as_stock_video(pictures)
        pixels = ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).numpy()

    def fingerprint(self) -> str:
        """Return a digest of all that the clips depend on."""
        told = "\n".join(scene.caption for scene in self._scenes)
        what = f"{self._camera or self._look}"
        return hashlib.sha256(f"toyworld/{self._seed}/{self._size}/{what}/{told}".encode()).hexdigest()


def drawn_footage(said: str, *, seed: int, size: int) -> DrawnFootage | None:
    """Return the clips that "toyworld", "toyworld:COUNT" or "toyworld:COUNT:WHAT" mean; None for anything else.

    WHAT is a camera motion, a personal style or "stock". `size` is the side of the pictures in pixels. Raises
    `ConfigError` for a count or a camera motion that there is not.
    """
    name, count, what = (*said.split(":", 2), "", "")[:3]
    if name != _NAME or Path(said).exists():
        return None
    if count and not (count.isascii() and count.isdigit() and int(count) > 0):
        raise ConfigError(f"expected clips as toyworld, toyworld:COUNT or toyworld:COUNT:WHAT, got {said!r}")
    if what in (STOCK, *STYLES):
        return DrawnFootage(int(count or _NUM_DRAWN), seed=seed, size=size, look=what)
    camera = CameraMotion.parse(what) if what else None
    return DrawnFootage(int(count or _NUM_DRAWN), seed=seed, size=size, camera=camera)


def _views(motion: CameraMotion, positions: Sequence[int]) -> Camera:
    """Return where a moving camera stands at those source frames, its crop inside the picture as `camera_path` lays it."""
    path = camera_path(motion, NUM_FRAMES, (_PICTURE, _PICTURE), (_PICTURE, _PICTURE))[list(positions)]
    turn, shift = path[:, 0, 0] + 1j * path[:, 1, 0], path[:, 0, 2] + 1j * path[:, 1, 2]
    middle = ((1 + 1j) * _PICTURE / 2 - shift) / turn / _PICTURE - (0.5 + 0.5j)  # of the frame, seen from the picture's
    scale, x, y, roll = (torch.from_numpy(v).float() for v in (abs(turn), middle.real, middle.imag, -np.angle(turn)))
    return Camera(scale=scale, x=x, y=y, roll=roll)
