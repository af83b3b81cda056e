"""Measures of clips in memory: what `stillmotion evaluate` takes of files, with the toyworld's tiny CLIP."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from stillmotion.claims.filming import Frames
from stillmotion.evaluation import METRICS, MetricName
from stillmotion.evaluation.clip_scores import ClipScores
from stillmotion.evaluation.job import Part
from stillmotion.evaluation.measured import Measured
from stillmotion.evaluation.motion import MotionMeasures
from stillmotion.evaluation.steadiness import PixelMeasures
from stillmotion.t2i.clip_pair import load_clip
from stillmotion.toyworld import weights_folder

Pictures = UInt8[np.ndarray, "pictures rows columns 3"]


class Gauge:
    """Takes the measures of these names of any number of clips."""

    def __init__(self, *names: MetricName) -> None:
        self._wanted = frozenset[str](names)
        self._kinds = {METRICS[name].takes for name in names}
        self._clip = load_clip(str(weights_folder() / "clip")) if "clip" in self._kinds else None

    def read(self, frames: Frames, prompt: str = "", references: Pictures | None = None) -> dict[str, float]:
        """Return the numbers by name; `references` are pictures of the image model.

        Left out is what the clip has no number of: text without a prompt, domain without pictures, a warping error where
        no pixel can be followed.
        """
        parts: list[Part] = []
        if self._clip is not None:
            said = self._clip.of_texts([prompt])[0] if prompt else None
            beside = None if references is None else self._clip.of_pictures(list(references))
            parts.append(ClipScores(self._clip, self._wanted, said, beside))
        if "flow" in self._kinds:
            parts.append(MotionMeasures(self._wanted))
        if "pixels" in self._kinds:
            parts.append(PixelMeasures())
        measured = Measured()
        for part in parts:
            for frame in frames:
                part.add(frame)
            measured.join(part.finish())
        measured.keep(self._wanted)
        return measured.values


def all_of(name: str, read: Sequence[dict[str, float]]) -> list[float]:
    """Return a measure of every clip that has it."""
    return [values[name] for values in read if name in values]


def paired(name: str, read: Sequence[dict[str, float]], other: Sequence[dict[str, float]]) -> list[float]:
    """Return a measure of every clip less that of its pair, where both have it."""
    return [a[name] - b[name] for a, b in zip(read, other, strict=True) if name in a and name in b]
