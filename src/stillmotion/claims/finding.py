"""What a claim of the paper comes to: figures, how sure they are, and whether the claim holds."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stillmotion.evaluation import interval_of
from stillmotion.toyworld import brought_file


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number: the mean of what each clip gave."""

    name: str
    """What it is, as the head of a row."""
    values: Sequence[float | int]
    """One per clip; of shares 1 where it is right and 0 where not."""
    at_least: float | None = None
    """What the mean must reach for the claim to hold; None where nothing is asked of it."""
    at_most: float | None = None
    """What it must not exceed."""
    surely_above: float | None = None
    """What the whole interval of the mean must lie above."""
    surely_below: float | None = None
    """What the whole interval must lie below."""
    as_share: bool = False
    """Whether it is told in per cent."""
    scale: str = ""
    """Figures of the same scale are drawn on it together; a share is drawn from 0 to 1, any other on a scale of its own."""

    @property
    def mean(self) -> float:
        """Return the mean over the clips; not a number where there are none."""
        return math.fsum(self.values) / len(self.values) if self.values else math.nan

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return the mean's 95 % bootstrap interval; None for fewer than two clips."""
        return interval_of([float(value) for value in self.values], purpose=self.name)

    @property
    def holds(self) -> bool:
        """Return whether the mean, and where that is asked its interval, is what is asked of it."""
        enough = self.at_least is None or self.mean >= self.at_least
        return enough and (self.at_most is None or self.mean <= self.at_most) and self._surely

    @property
    def limits(self) -> tuple[tuple[str, float], ...]:
        """Return what is asked of it: (in words, the number), for each thing asked."""
        limits = (
            ("at least", self.at_least),
            ("at most", self.at_most),
            ("interval above", self.surely_above),
            ("interval below", self.surely_below),
        )
        return tuple((word, limit) for word, limit in limits if limit is not None)

    @property
    def wanted(self) -> str:
        """Return what is asked of it, in words; empty where nothing is."""
        return ", ".join(f"{word} {self.told(limit)}" for word, limit in self.limits)

    @property
    def _surely(self) -> bool:
        if self.surely_above is None and self.surely_below is None:
            return True
        low, high = self.interval or (-math.inf, math.inf)  # one clip alone makes nothing sure
        above = self.surely_above is None or low > self.surely_above
        return above and (self.surely_below is None or high < self.surely_below)

    def told(self, value: float) -> str:
        """Return a value of this figure as it is written."""
        return f"{value:.1%}" if self.as_share else f"{value:.3g}"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One clip of a claim is made and measured, or one step of what is trained for it done."""

    done: int
    total: int
    what: str = ""
    """What is done where it is not clips: training neon."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What came out of one claim."""

    figures: tuple[Figure, ...]

    @property
    def holds(self) -> bool:
        """Return whether every figure is what is asked of it."""
        return all(figure.holds for figure in self.figures)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is spent on a claim."""

    share: float = 1.0
    """The share of the clips that are made: 1 for the report, less for a look."""
    seed: int = 7
    """What draws captions and noise."""
    num_inference_steps: int = 12
    """Denoising steps of every clip."""
    sheets: Path | None = None
    """Where each clip's contact sheet is written, to look at."""
    retrain: bool = False
    """Whether what was trained for a claim, and ships, is trained anew."""
    folder: Path = Path("runs/claims")
    """Where findings, and what is trained on the way, are kept; a run in it goes on."""

    def of(self, count: int) -> int:
        """Return how many of `count` clips are made, at least two."""
        return max(2, round(self.share * count))


@dataclass(frozen=True)
class Needed:
    """A trained file, by the field of a job that takes it and its name, which is that of its stage in the recipe."""

    field: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim of the paper and how it is measured here."""

    name: str
    """C1 to C9."""
    sentence: str
    """What is claimed."""
    measured: str
    """What is measured on the toyworld."""
    where: str
    """Where the paper says it."""
    measure: Callable[[Budget], Iterator[Progress | Finding]]
    """Yields progress, and at last the finding."""
    note: str = ""
    """What is to be known of the measure, and the reason looked for where the claim does not hold."""
    needed: tuple[Needed, ...] = ()
    """What was trained for it."""

    def require(self) -> None:
        """Raise `FileError` where the weights do not hold what was trained for it."""
        for needed in self.needed:
            brought_file(needed.field, needed.name)
