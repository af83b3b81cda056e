"""What a baseline tells beside what `animate` does."""

from dataclasses import dataclass

from stillmotion.animate import Event


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A step of Tune-A-Video's tuning is done; after `Loaded`."""

    step: int
    """Which step, from 1."""
    num_steps: int
    """Of how many."""
    loss: float
    """Mean squared error of its noise."""
    seconds: float
    """How long it took."""


@dataclass(frozen=True, kw_only=True)
class Inverted:
    """A step of the inversion of the tuning clip is done; after the tuning."""

    step: int
    """Which step, from 1."""
    total: int
    """Of how many."""


BaselineEvent = Event | Tuned | Inverted
"""Anything that a baseline yields: `animate`'s events, in their order, and its own before the first clip."""
