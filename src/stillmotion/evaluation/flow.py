"""Optical flow between two frames (OpenCV's DIS, no weights), and the camera motion that explains most of it.

A camera that pans, tilts, rolls and zooms moves all of the picture by one similarity. RANSAC finds the similarity on which
most of the points that can be followed agree; how many do is its confidence. What moves by itself disagrees and is left
out, as long as it fills less of the picture's detail than what stands still.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

Grey = UInt8[np.ndarray, "height width"]
Flow = Float32[np.ndarray, "height width 2"]
Similarity = Float64[np.ndarray, "3 3"]

LARGEST_SIDE = 512
"""Frames are shrunk to this longest side before they are followed: every measure is a share of the frame."""

_GRID = 2  # every second pixel in both directions is a point
_DETAIL = 1.0  # mean squared slope in grey levels, below which flow is guesswork
_FEWEST_POINTS = 64
_MARGIN = 3  # pixels along the edge that are left out
_ROUNDS = 3


@dataclass(frozen=True)
class CameraStep:
    """How the camera moved between two frames."""

    similarity: Similarity
    """Where a point of the first lies in the second, (x, y, 1) in pixels measured from the frame's middle, y down."""
    confidence: float
    """The share of followed points that agree, 0 to 1."""
    residual: float
    """The mean length in pixels of what is left of the flow without the camera."""


@cache
def opencv() -> Any:
    """Return OpenCV's module; raise `ImportError` where it is not installed."""
    import cv2  # noqa: PLC0415  # an extra, and only these metrics need it

    return cv2


def grey_of(frame: UInt8[np.ndarray, "rows columns 3"]) -> Grey:
    """Return a frame in shades of grey, no side longer than `LARGEST_SIDE`."""
    cv2 = opencv()
    grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    shrink = LARGEST_SIDE / max(grey.shape)
    if shrink >= 1:
        return grey
    size = (max(round(grey.shape[1] * shrink), 16), max(round(grey.shape[0] * shrink), 16))
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA)


def flow_between(first: Grey, second: Grey) -> Flow:
    """Return how far each pixel of `first` moved to `second`: right and down, in pixels."""
    cv2 = opencv()
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(first, second, None)


def visible(forward: Flow, backward: Flow) -> Bool[np.ndarray, "height width"]:
    """Return which pixels of the first frame are seen in the second too: going there and back ends where it began.

    The threshold is Sundaram et al.'s (ECCV 2010), as in the warping error of Lai et al. (ECCV 2018).
    """
    height, width = forward.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    there_x, there_y = x + forward[..., 0], y + forward[..., 1]
    back = at(backward, there_x, there_y)
    apart = np.square(forward + back).sum(-1)
    allowed = 0.01 * (np.square(forward).sum(-1) + np.square(back).sum(-1)) + 0.5
    inside = (there_x >= 0) & (there_y >= 0) & (there_x <= width - 1) & (there_y <= height - 1)
    return (apart <= allowed) & inside


def at(
    picture: np.ndarray, x: Float32[np.ndarray, "rows columns"], y: Float32[np.ndarray, "rows columns"]
) -> np.ndarray:
    """Return the picture's values at places between its pixels; beyond its edges the edge goes on."""
    cv2 = opencv()
    return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def camera_step(first: Grey, second: Grey, flow: Flow) -> CameraStep | None:
    """Return the camera's motion from `first` to `second`, `flow` being the flow between them; None if nothing says it.

    Flow is a little short, being smoothed. So the second frame is brought back by what was found, and what is left is
    measured again, twice.
    """
    cv2 = opencv()
    height, width = first.shape
    y, x = np.mgrid[0:height:_GRID, 0:width:_GRID].astype(np.float32)
    detailed = _detail(first)[::_GRID, ::_GRID] > _DETAIL
    threshold = max(0.5, max(height, width) / LARGEST_SIDE)
    found, confidence = np.eye(3), 0.0
    for number in range(_ROUNDS):
        if number:
            brought = cv2.warpAffine(
                second,
                found[:2],
                (width, height),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
            left = flow_between(first, brought)[::_GRID, ::_GRID]
        else:
            left = flow[::_GRID, ::_GRID]
        to_x, to_y = x + left[..., 0], y + left[..., 1]
        usable = detailed & _inside(found, to_x, to_y, (height, width))
        if usable.sum() < _FEWEST_POINTS:
            return None
        points, places = np.stack([x, y], -1)[usable], np.stack([to_x, to_y], -1)[usable]
        fitted, agree = cv2.estimateAffinePartial2D(
            points, places, method=cv2.RANSAC, ransacReprojThreshold=threshold, maxIters=1000, confidence=0.999
        )
        if fitted is None:
            return None
        found, confidence = found @ np.vstack([fitted, [0, 0, 1]]), float(agree.mean())
    to_middle = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])
    moved = np.moveaxis(np.tensordot(found[:2, :2], np.stack([x, y]), 1), 0, -1) + found[:2, 2]
    residual = np.hypot(*np.moveaxis(flow[::_GRID, ::_GRID] + np.stack([x, y], -1) - moved, -1, 0))
    return CameraStep(np.linalg.inv(to_middle) @ found @ to_middle, confidence, float(residual.mean()))


def _detail(grey: Grey) -> Float32[np.ndarray, "height width"]:
    """Return the mean squared slope about each pixel."""
    cv2 = opencv()
    across, down = (cv2.Sobel(grey, cv2.CV_32F, *order) / 8 for order in ((1, 0), (0, 1)))
    return cv2.blur(across * across + down * down, (9, 9))


def _inside(
    found: Similarity,
    x: Float32[np.ndarray, "rows columns"],
    y: Float32[np.ndarray, "rows columns"],
    size: tuple[int, int],
) -> Bool[np.ndarray, "rows columns"]:
    """Return which places, brought to the second frame, lie well inside it: beyond, there is nothing to follow."""
    there_x = found[0, 0] * x + found[0, 1] * y + found[0, 2]
    there_y = found[1, 0] * x + found[1, 1] * y + found[1, 2]
    inside = (there_x >= _MARGIN) & (there_y >= _MARGIN)
    return inside & (there_x <= size[1] - 1 - _MARGIN) & (there_y <= size[0] - 1 - _MARGIN)
