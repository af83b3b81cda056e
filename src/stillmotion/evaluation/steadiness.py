"""What pixels alone tell of one clip, frame by frame: flicker, the seam of its loop, saturation."""

import numpy as np
from jaxtyping import UInt8

from stillmotion.evaluation.measured import Measured

_ROUNDING = 0.5  # grey levels: steps as small as a picture's rounding are no steps


class PixelMeasures:
    """Measures one clip."""

    def __init__(self) -> None:
        self._first: np.ndarray | None = None
        self._last: np.ndarray | None = None
        self._steps: list[float] = []
        self._saturations: list[float] = []

    def add(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Take the next frame."""
        self._saturations.append(100 * float((frame.max(2) - frame.min(2)).mean()) / 255)
        if self._last is None:
            self._first = frame
        else:
            self._steps.append(_apart(self._last, frame))
        self._last = frame

    def finish(self) -> Measured:
        """Return the measures."""
        found = Measured()
        if self._first is None or self._last is None:
            return found
        found.mean_of("saturation", self._saturations)
        if self._steps:
            found.mean_of("flicker", [step / 2.55 for step in self._steps])
        if len(self._steps) > 1:
            seam = _apart(self._last, self._first)
            found.values["loop_seam"] = (seam + _ROUNDING) / (float(np.median(self._steps)) + _ROUNDING)
        return found


def _apart(first: UInt8[np.ndarray, "height width 3"], second: UInt8[np.ndarray, "height width 3"]) -> float:
    """Return the mean difference of two frames in grey levels."""
    return float(np.abs(first.astype(np.int16) - second).mean())
