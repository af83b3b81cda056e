"""Which frames of a clip are taken, and how a picture comes to the size that is trained on.

Every choice is a function of a generator that the caller makes from (seed, purpose, index), so pixels and cached latents
of the same draw are the same frames.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from stillmotion.config import Config, Limits
from stillmotion.errors import ConfigError

Size = tuple[int, int]
"""Width and height in pixels."""

FITTING = "resized to cover (bilinear, antialiased), cropped at the centre"
"""What `fit` does, in words: part of a latent cache's header. Change both together."""

_WIDEST = 2.0  # of a bucket: what is wider or higher than 2:1 is cropped to it
_COARSE, _FINE = 64, 8  # pixels between bucket sizes: SD's UNet halves latents (8 pixels) three times
_SMALLEST_COARSE = 256 * 256  # below this area steps of 64 would leave a bucket or two
_SIDED = re.compile(
    r"\b(?:left|right)(?:ward|wards|most|[- ]?hand(?:ed)?)?\b|\b(?:anti|counter)?-?clockwise\b", flags=re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class ClipRecipe(Config):
    """How a training clip is cut out of a longer one."""

    num_frames: Annotated[int, Limits(minimum=1)] = 16
    """How many frames a training clip has."""

    frame_stride: Annotated[int, Limits(minimum=1)] = 4
    """How many source frames lie between two of them."""

    width: Annotated[int, Limits(minimum=8, maximum=8192, multiple_of=8)] = 256
    """Width in pixels."""

    height: Annotated[int, Limits(minimum=8, maximum=8192, multiple_of=8)] = 256
    """Height in pixels."""

    short_clips: Literal["skip", "loop", "stretch"] = "skip"
    """What becomes of a clip that is too short: left out, begun again, or slowed down by repeated frames."""

    buckets: bool | tuple[tuple[int, int], ...] = False
    """Whether clips keep about their own shape: sizes of the same area, from 1:2 to 2:1, or a list of [width, height]."""

    horizontal_flip: bool = False
    """Whether half of the clips are mirrored; refused where captions or the training speak of left and right."""

    def check(self) -> None:
        """Refuse sizes of buckets that no VAE takes."""
        wrong = [size for size in self.sizes if any(side < _FINE or side % _FINE for side in size)]
        if wrong:
            raise ConfigError(f"buckets: expected sides that are multiples of {_FINE}, got {list(wrong[0])}")

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Return every size that a clip may get: one without buckets."""
        if isinstance(self.buckets, tuple) and self.buckets:
            return tuple((width, height) for width, height in self.buckets)
        return bucket_sizes(self.width, self.height) if self.buckets else ((self.width, self.height),)

    @property
    def span(self) -> int:
        """Return how many source frames a training clip reaches over."""
        return (self.num_frames - 1) * self.frame_stride + 1


def long_enough(num_available: int, recipe: ClipRecipe) -> bool:
    """Return whether a clip of so many frames is used: `positions` gives frames for it, not None."""
    return num_available >= recipe.span or (num_available > 0 and recipe.short_clips != "skip")


def positions(num_available: int, recipe: ClipRecipe, chance: torch.Generator) -> list[int] | None:
    """Return the frames of one training clip, `recipe.num_frames` of them, each from 0 to `num_available` - 1.

    The start is drawn evenly. Of a clip that is too short: None for "skip", which the caller counts; for "loop" the
    clip from a random start, begun again at its end; for "stretch" frames spread evenly from the first to the last.
    """
    if not long_enough(num_available, recipe):
        return None
    room = num_available - recipe.span
    if room < 0 and recipe.short_clips == "stretch":
        step = (num_available - 1) / (recipe.num_frames - 1)
        return [round(index * step) for index in range(recipe.num_frames)]
    starts = room + 1 if room >= 0 else num_available
    start = int(torch.randint(starts, (1,), generator=chance))
    return [(start + index * recipe.frame_stride) % num_available for index in range(recipe.num_frames)]


def flipped(recipe: ClipRecipe, chance: torch.Generator) -> bool:
    """Return whether this clip is mirrored: a coin's toss where the recipe allows it."""
    return recipe.horizontal_flip and bool(torch.rand(1, generator=chance) < 0.5)


def fit(
    frames: UInt8[np.ndarray, "frames height width 3"], width: int, height: int, *, flip: bool = False
) -> Float[Tensor, "frames 3 rows columns"]:
    """Return the frames in [-1, 1] at `width` x `height`: resized to cover it, antialiased, and cropped at the centre.

    A frame comes out the same whatever frames are beside it. `flip` mirrors left and right.
    """
    fitted = [_fit(frame, width, height) for frame in frames]
    pixels = torch.stack(fitted) if fitted else torch.empty(0, 3, height, width)
    return pixels.flip(-1) if flip else pixels


def _fit(frame: np.ndarray, width: int, height: int) -> Tensor:
    pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float()
    old_height, old_width = frame.shape[:2]
    if (old_width, old_height) != (width, height):
        scale = max(width / old_width, height / old_height)
        covering = (max(height, round(old_height * scale)), max(width, round(old_width * scale)))
        pixels = F.interpolate(pixels, covering, mode="bilinear", antialias=True)
        top, left = (covering[0] - height) // 2, (covering[1] - width) // 2
        pixels = pixels[:, :, top : top + height, left : left + width]
    return (pixels[0] / 127.5 - 1).clamp(-1, 1)


def bucket_sizes(width: int, height: int) -> tuple[Size, ...]:
    """Return sizes of about the area `width` x `height`, from 1:2 to 2:1, widest last; that size itself is one of them.

    Sides are multiples of 64 pixels (8 below 256x256). To each shorter side belongs the longer one that comes nearest to
    the area, lying and standing; none is more than a quarter off it.
    """
    area = width * height
    step = _COARSE if area >= _SMALLEST_COARSE else _FINE
    found = {(width, height)}
    for short in range(step, math.isqrt(area) + 1, step):
        long = round(area / short / step) * step
        if abs(short * long / area - 1) <= 0.25 and long <= _WIDEST * short:
            found |= {(short, long), (long, short)}
    return tuple(sorted(found, key=lambda size: (size[0] / size[1], size)))


def nearest_size(width: int, height: int, sizes: Sequence[Size]) -> Size:
    """Return the size whose aspect is nearest to that of a `width` x `height` picture; of equals the larger one."""
    aspect = math.log(width / height)
    return min(sizes, key=lambda size: (abs(math.log(size[0] / size[1]) - aspect), -size[0] * size[1], size))


def check_flip(recipe: ClipRecipe, captions: Iterable[str], *, directional: bool = False) -> None:
    """Raise `ConfigError` where mirrored clips would lie: a caption names a side or a sense of turning.

    `directional` says that the training itself is about a direction, as a MotionLoRA of a camera motion is.
    """
    if not recipe.horizontal_flip:
        return
    if directional:
        raise ConfigError(
            "horizontal_flip: expected false here, since a mirrored clip moves the other way: a pan to the left would "
            "be learnt as one to the right too"
        )
    for caption in captions:
        if word := _SIDED.search(caption):
            raise ConfigError(
                f"horizontal_flip: expected false, since captions speak of sides ({word[0]!r} in {caption[:80]!r}), "
                "which would be wrong for a mirrored clip; leave it off, or take such words out"
            )
