"""What a claim of the paper comes to: figures, how sure they are, and whether the claim holds."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stillmotion.evaluation import interval_of


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
    as_share: bool = False
    """Whether it is told in per cent."""

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
        """Return whether the mean is what is asked of it."""
        enough = self.at_least is None or self.mean >= self.at_least
        return enough and (self.at_most is None or self.mean <= self.at_most)

    @property
    def wanted(self) -> str:
        """Return what is asked of it, in words; empty where nothing is."""
        limits = [("at least", self.at_least), ("at most", self.at_most)]
        return ", ".join(f"{word} {self.told(limit)}" for word, limit in limits if limit is not None)

    def told(self, value: float) -> str:
        """Return a value of this figure as it is written."""
        return f"{value:.1%}" if self.as_share else f"{value:.3g}"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One clip of a claim is made and measured."""

    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What came out of one claim."""

    figures: tuple[Figure, ...]
    note: str = ""
    """What was seen beside, and the reason looked for where the claim does not hold."""

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

    def of(self, count: int) -> int:
        """Return how many of `count` clips are made, at least two."""
        return max(2, round(self.share * count))


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
    require: Callable[[], None] = lambda: None
    """Raises `FileError` where the weights that it needs are not there."""
