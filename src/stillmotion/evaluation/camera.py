"""The camera motion of a whole clip out of its steps, in the words and signs of `stillmotion data camera`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stillmotion.data import CAMERA_MOTIONS
from stillmotion.evaluation.flow import CameraStep

SURE = 0.85
"""The confidence from which a camera motion is given a name: below, what moves in the picture may be mistaken for it."""

UNCLEAR = "unclear"
"""The name of a motion that is not to be trusted."""

# What a camera must do over a clip to be called moving: a factor of zoom, shares of the frame, degrees.
_LEAST = {"zoom": math.log(1.04), "pan": 0.03, "tilt": 0.03, "roll": 2.0}
_SHOWN = {"zoom": ".2f", "pan": ".2f", "tilt": ".2f", "roll": ".0f"}


@dataclass(frozen=True, kw_only=True)
class CameraMeasured:
    """What the camera did from the first frame to the last; signs as `CameraMotion`'s."""

    zoom: float
    """How many times larger things are in the end."""
    pan: float
    """How far it turned right, in frame widths."""
    tilt: float
    """How far it turned up, in frame heights."""
    roll: float
    """How far it rolled clockwise, in degrees."""
    confidence: float
    """The mean share of followed points that agree on it, 0 to 1; a step that says nothing counts as 0."""

    def amount(self, motion: str) -> float:
        """Return how far it went in the direction of a motion's name, negative the other way; of zoom the logarithm."""
        known = CAMERA_MOTIONS[motion]
        value = getattr(self, known.field)
        return (math.log(value) if known.field == "zoom" else value) * known.sign

    def goes(self, motion: str) -> bool:
        """Return whether it moved that way so far that it is called moving, however sure that is."""
        return self.amount(motion) >= _LEAST[CAMERA_MOTIONS[motion].field]

    @property
    def name(self) -> str:
        """Return it in words: "zoom-in:1.30+pan-left:0.12", "still", or "unclear" where the confidence is below `SURE`."""
        if self.confidence < SURE:
            return UNCLEAR
        parts = []
        for word, known in CAMERA_MOTIONS.items():
            if self.goes(word):
                amount = math.exp(self.amount(word)) if known.field == "zoom" else self.amount(word)
                parts.append(f"{word}:{amount:{_SHOWN[known.field]}}")
        return "+".join(parts) or "still"


def camera_of(steps: Sequence[CameraStep | None], size: tuple[int, int]) -> CameraMeasured | None:
    """Return the steps one after the other, for frames of `size` (height, width); None where no step says anything."""
    if not any(steps):
        return None
    whole, roll = np.eye(3), 0.0
    for step in steps:
        if step is not None:
            whole = step.similarity @ whole
            roll += math.degrees(math.atan2(step.similarity[1, 0], step.similarity[0, 0]))  # beyond half a turn, too
    confidence = sum(step.confidence for step in steps if step is not None) / len(steps)
    return CameraMeasured(
        zoom=float(np.hypot(whole[0, 0], whole[1, 0])),
        pan=float(-whole[0, 2] / size[1]),
        tilt=float(whole[1, 2] / size[0]),
        roll=-roll,
        confidence=confidence,
    )
