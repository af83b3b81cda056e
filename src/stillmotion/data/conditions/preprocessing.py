"""Edges for a canny ControlNet, with OpenCV; depth, which needs a model, is in `t2i`."""

from importlib.util import find_spec

import numpy as np
from jaxtyping import UInt8

from stillmotion.errors import ConfigError

LOW, HIGH = 100, 200
"""Canny's two thresholds: edges above the high one, and those above the low one that touch them. ControlNet's own."""


def require_canny() -> None:
    """Raise `ConfigError` where OpenCV is not installed."""
    if find_spec("cv2") is None:
        raise ConfigError('preprocessor: canny needs OpenCV; install it by: pip install "stillmotion[control]"')


def canny(frames: UInt8[np.ndarray, "frames height width 3"]) -> UInt8[np.ndarray, "frames height width 3"]:
    """Return the edges of each frame (Canny 1986), white on black."""
    require_canny()
    import cv2  # noqa: PLC0415  # an extra

    edges = [cv2.Canny(np.ascontiguousarray(frame), LOW, HIGH) for frame in frames]
    return np.repeat(np.stack(edges)[..., None], 3, axis=-1)
