"""Camera motion as numbers: what is asked for, and where each frame's crop then lies in the picture.

MotionLoRA learns from clips whose camera is known (AnimateDiff, arXiv 2307.04725, §4.3: "gradually reducing or enlarging
the cropping area of video frames along the temporal axis"; pans, tilts and rolls the same way). Names say what the
**camera** does, as on a film set; what the picture shows goes the other way:

    name                  the camera                       what is seen
    zoom-in, zoom-out     comes nearer, goes away          grows, shrinks about the middle
    pan-left, pan-right   turns left, turns right          moves right, moves left
    tilt-up, tilt-down    turns up, turns down             moves down, moves up
    roll-clockwise        rolls clockwise, seen from       turns anticlockwise
    roll-anticlockwise    behind it; the other way         turns clockwise

From the first frame to the last, what is seen undergoes one similarity about the frame's middle: scaled by `zoom`, turned
by `roll`, shifted by `pan` and `tilt`. The frames between are that similarity's powers, so with linear easing every two
neighbours differ by the same motion, and sums (a spiral, a zoom that drifts) are as even as their parts.

Points are (x, y) in pixels, y down, a pixel covering [i, i + 1]: a picture's corners are (0, 0) and (width, height).
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

import numpy as np
from jaxtyping import Complex128, Float64

from stillmotion.config import Config, Limits
from stillmotion.errors import ConfigError, MismatchError

Easing = Literal["linear", "smooth"]
"""`linear` moves evenly; `smooth` starts and ends at rest (smoothstep)."""

EASINGS: tuple[Easing, ...] = get_args(Easing)

Size = tuple[int, int]
"""(height, width) in pixels."""

Number = int | float

SMALLEST_CROP = 16
"""A frame is never taken from fewer pixels of the picture than this, across or down."""

_MOST = {"zoom": 20.0, "pan": 4.0, "tilt": 4.0, "roll": 180.0}


@dataclass(frozen=True, kw_only=True)
class KnownMotion:
    """A motion that has a name."""

    field: Literal["zoom", "pan", "tilt", "roll"]
    """Which field of `CameraMotion` it sets."""
    sign: Literal[-1, 1]
    """Which way; a zoom of -1 divides."""
    amount: float
    """How much, where nobody says: a factor, a share of the frame, or degrees."""
    seen: str
    """What is seen."""


CAMERA_MOTIONS: Mapping[str, KnownMotion] = MappingProxyType(
    {
        "zoom-in": KnownMotion(field="zoom", sign=1, amount=1.5, seen="what is seen grows"),
        "zoom-out": KnownMotion(field="zoom", sign=-1, amount=1.5, seen="what is seen shrinks"),
        "pan-left": KnownMotion(field="pan", sign=-1, amount=0.3, seen="what is seen moves right"),
        "pan-right": KnownMotion(field="pan", sign=1, amount=0.3, seen="what is seen moves left"),
        "tilt-up": KnownMotion(field="tilt", sign=1, amount=0.3, seen="what is seen moves down"),
        "tilt-down": KnownMotion(field="tilt", sign=-1, amount=0.3, seen="what is seen moves up"),
        "roll-clockwise": KnownMotion(field="roll", sign=1, amount=30.0, seen="what is seen turns anticlockwise"),
        "roll-anticlockwise": KnownMotion(field="roll", sign=-1, amount=30.0, seen="what is seen turns clockwise"),
    }
)
"""The eight motions by name."""

_EXPECTED = {
    "zoom": "a factor above 1 and up to 20",
    "pan": "a share of the frame's width above 0 and up to 4",
    "tilt": "a share of the frame's height above 0 and up to 4",
    "roll": "degrees above 0 and up to 180",
}


@dataclass(frozen=True, kw_only=True)
class CameraMotion:
    """How a camera moves over a clip, from the first frame to the last.

    Raises `ConfigError` for a value out of range.
    """

    zoom: Number = 1.0
    """How many times larger things are in the end: above 1 comes nearer, below 1 goes away; 0.05 to 20."""
    pan: Number = 0.0
    """How far it turns right, in frame widths that the picture moves left; negative is left; -4 to 4."""
    tilt: Number = 0.0
    """How far it turns up, in frame heights that the picture moves down; negative is down; -4 to 4."""
    roll: Number = 0.0
    """How far it rolls clockwise, in degrees that the picture turns anticlockwise; -180 to 180."""
    easing: Easing = "linear"
    """How it gets there."""

    def __post_init__(self) -> None:
        if self.easing not in EASINGS:
            raise ConfigError(f"easing: expected one of {', '.join(EASINGS)}, got {self.easing!r}")
        for name, most in _MOST.items():
            value = getattr(self, name)
            least = 1 / most if name == "zoom" else -most
            # A factor of 20, divided and multiplied again, may be off by the last digit.
            if not least * (1 - math.copysign(1e-9, least)) <= value <= most * (1 + 1e-9):
                raise ConfigError(f"{name}: expected a number from {least:g} to {most:g}, got {value!r}")
            object.__setattr__(self, name, float(value))

    @classmethod
    def from_name(cls, name: str, amount: Number | None = None, *, easing: Easing = "linear") -> "CameraMotion":
        """Return one of `CAMERA_MOTIONS`; its amount is positive, the name says which way.

        Raises `ConfigError` for an unknown name, with the nearest one, and for an amount that cannot be.
        """
        known = CAMERA_MOTIONS.get(name.strip().lower().replace("_", "-"))
        if known is None:
            near = difflib.get_close_matches(name.lower().replace("_", "-"), CAMERA_MOTIONS, n=1, cutoff=0.4)
            hint = f"the nearest is {near[0]!r}; " if near else ""
            raise ConfigError(f"unknown camera motion {name!r}; {hint}known are {', '.join(CAMERA_MOTIONS)}")
        value = known.amount if amount is None else amount
        still = 1 if known.field == "zoom" else 0
        if not still < value <= _MOST[known.field]:
            raise ConfigError(f"{name}: expected {_EXPECTED[known.field]}, got {value!r}")
        signed = value**known.sign if known.field == "zoom" else value * known.sign
        fields: dict[str, Any] = {known.field: signed, "easing": easing}
        return cls(**fields)

    @classmethod
    def parse(cls, text: str, *, easing: Easing = "linear") -> "CameraMotion":
        """Return the motion of a text such as `zoom-in`, `zoom-in:1.3` or `zoom-in:1.3+pan-left:0.2`.

        Raises `ConfigError` naming the part that is wrong, and where all parts together move nothing.
        """
        total = cls(easing=easing)
        for part in text.split("+"):
            name, colon, amount = part.strip().partition(":")
            if not name:
                raise ConfigError(f"expected a camera motion such as zoom-in:1.3+pan-left:0.2, got {text!r}")
            try:
                number = float(amount) if colon else None
            except ValueError:
                raise ConfigError(f"{name}: expected a number behind the colon, got {amount!r}") from None
            total += cls.from_name(name, number, easing=easing)
        if not total.moves:
            raise ConfigError(f"{text!r}: these motions cancel each other, so nothing would move")
        return total

    @property
    def moves(self) -> bool:
        """Whether anything moves."""
        return abs(self.zoom - 1) > 1e-9 or max(abs(self.pan), abs(self.tilt), abs(self.roll)) > 1e-9

    def __add__(self, other: "CameraMotion") -> "CameraMotion":
        """Return both at once: zooms multiply, the rest adds up; raise `ConfigError` where the easings differ."""
        if self.easing != other.easing:
            raise ConfigError(f"expected motions of one easing to add, got {self.easing!r} and {other.easing!r}")
        return replace(
            self,
            zoom=self.zoom * other.zoom,
            pan=self.pan + other.pan,
            tilt=self.tilt + other.tilt,
            roll=self.roll + other.roll,
        )

    def __str__(self) -> str:
        """Return the text that `parse` reads; "still" where nothing moves."""
        parts = []
        for name, known in CAMERA_MOTIONS.items():
            value = getattr(self, known.field)
            signed = value**known.sign - 1 if known.field == "zoom" else value * known.sign
            if signed > 1e-9:
                parts.append(f"{name}:{signed + (known.field == 'zoom'):.9g}")
        return "+".join(parts) or "still"


@dataclass(frozen=True, kw_only=True)
class CameraConfig(Config):
    """One job of giving clips or pictures a camera motion."""

    source: Path
    """A clip, a picture, or a folder of clips and pictures; a folder in it that holds frames is a clip."""

    motion: Annotated[str, Limits(blank=False)]
    """What the camera does: zoom-in, pan-left, tilt-up, roll-clockwise and their opposites, name or name:amount, joined
    by +. A zoom's amount is a factor, a pan's or tilt's a share of the frame, a roll's degrees."""

    out: Path
    """The clip to write (.mp4, .webm, .gif, .webp), or a folder for clips called like their sources, as mp4."""

    num_frames: Annotated[int, Limits(minimum=2)] = 16
    """How many frames a clip gets; the motion takes all of them."""

    frame_stride: Annotated[int, Limits(minimum=1)] = 1
    """The step between the frames taken of a clip: 1 takes all, 4 every fourth."""

    width: Annotated[int | None, Limits(minimum=16, maximum=8192, multiple_of=8)] = None
    """Width in pixels; by default as the height and the source's shape give it, the shorter side at most 512."""

    height: Annotated[int | None, Limits(minimum=16, maximum=8192, multiple_of=8)] = None
    """Height in pixels; by default as the width and the source's shape give it."""

    fps: Annotated[float | None, Limits(minimum=0.1, maximum=240)] = None
    """Frames per second; by default the source's over the stride, 8 for a picture."""

    easing: Easing = "linear"
    """How the camera moves: evenly, or smoothly from rest to rest."""

    overwrite: bool = False
    """Whether clips that are there are made again."""

    def check(self) -> None:
        """Refuse a motion that is none."""
        try:
            self.camera()
        except ConfigError as error:
            raise ConfigError(f"motion: {error}") from None

    def camera(self) -> CameraMotion:
        """Return the motion."""
        return CameraMotion.parse(self.motion, easing=self.easing)


def camera_path(
    motion: CameraMotion, num_frames: int, source_size: Size, target_size: Size
) -> Float64[np.ndarray, "frames 2 3"]:
    """Return for each frame the similarity that brings a point of the source picture to its place in the frame.

    The crops have the frame's shape and are the largest that keep all of them inside the picture; in the first frame
    the picture stands upright. `path[i] @ (x, y, 1)` is in pixels of the frame; what is seen moves from the first frame
    to frame i by `path[i]` after the inverse of `path[0]`.

    Raises `ConfigError` for fewer than 2 frames or a size without pixels, `MismatchError` where the picture is too
    small for the motion.
    """
    if num_frames < 2:
        raise ConfigError(f"num_frames: expected at least 2, since a camera moves between frames, got {num_frames}")
    if min(*source_size, *target_size) < 1:
        raise ConfigError(f"expected sizes of at least 1x1, got a picture of {source_size} and frames of {target_size}")
    scale, shift = _seen_motion(motion, num_frames, target_size)
    half = complex(target_size[1], target_size[0]) / 2
    corners = np.array([half, half.conjugate(), -half, -half.conjugate()])
    # Where each frame's corners lie in the first frame. A crop is the convex hull of its corners, so the crops are inside
    # the source exactly if the box round all corners is; the largest are those whose box touches two opposite edges.
    reach = (corners - shift[:, None]) / scale[:, None]
    low = complex(reach.real.min(), reach.imag.min())
    high = complex(reach.real.max(), reach.imag.max())
    across, down = (high - low).real, (high - low).imag
    pixel = min(source_size[1] / across, source_size[0] / down)  # of the first frame, in pixels of the source
    _refuse_tiny(motion, pixel / float(np.abs(scale).max()) * min(target_size), source_size)
    middle = complex(source_size[1], source_size[0]) / 2 - pixel * (low + high) / 2  # of the first frame, in the source
    linear = scale / pixel
    offset = half + shift - linear * middle
    rows = [[linear.real, -linear.imag, offset.real], [linear.imag, linear.real, offset.imag]]
    return np.moveaxis(np.array(rows), 2, 0)


def _seen_motion(
    motion: CameraMotion, num_frames: int, size: Size
) -> tuple[Complex128[np.ndarray, "frames"], Complex128[np.ndarray, "frames"]]:
    """Return a and b of `z -> a z + b` from the first frame to each, z = x + iy measured from the frame's middle.

    They are the powers s of the last frame's similarity: a^s, and b (a^s - 1) / (a - 1), which is s b where a is 1.
    """
    share = np.linspace(0, 1, num_frames)
    if motion.easing == "smooth":
        share = share**2 * (3 - 2 * share)
    # y points down: turning x towards y is clockwise, and the picture turns against the camera.
    log = complex(math.log(motion.zoom), -math.radians(motion.roll))
    last = complex(-motion.pan * size[1], motion.tilt * size[0])
    part = np.expm1(share * log) / np.expm1(log) if log else share + 0j
    return np.exp(share * log), last * part


def _refuse_tiny(motion: CameraMotion, crop: float, source_size: Size) -> None:
    if crop < SMALLEST_CROP:
        height, width = source_size
        raise MismatchError(
            f"{motion}: the smallest crop would be {crop:.1f} pixels of a picture of {width}x{height}, expected at least "
            f"{SMALLEST_CROP}; ask for less motion, or take a larger picture"
        )
