"""What was measured of one clip: a number per metric, its course over the frames, and why something is not there."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Measured:
    """The measures of one clip, or a part of them."""

    values: dict[str, float] = field(default_factory=dict)
    """A number by the metric's name."""
    series: dict[str, list[float]] = field(default_factory=dict)
    """Its course: an entry per frame, or per pair of neighbours, where a metric has one."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Why a metric has no number."""
    camera: str = ""
    """The camera's motion in words."""

    def mean_of(self, name: str, values: Iterable[float]) -> None:
        """Keep a course and its mean."""
        course = [float(value) for value in values]
        self.series[name], self.values[name] = course, float(np.mean(course))

    def keep(self, wanted: frozenset[str]) -> None:
        """Leave out what is not wanted, and numbers that are none: those are skipped with that reason."""
        broken = {name for name, value in self.values.items() if not math.isfinite(value)}
        self.skipped.update(dict.fromkeys(broken, "what was computed is no finite number"))
        self.values = {name: value for name, value in self.values.items() if name in wanted - broken}
        self.series = {name: course for name, course in self.series.items() if name in self.values}
        self.skipped = {name: why for name, why in self.skipped.items() if name in wanted}

    def join(self, other: "Measured") -> None:
        """Take over what another part measured."""
        self.values |= other.values
        self.series |= other.series
        self.skipped |= other.skipped
        self.camera = self.camera or other.camera
