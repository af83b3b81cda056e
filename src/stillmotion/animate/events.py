"""What a job tells while it runs. Doors show these; nothing here prints."""

from collections.abc import Callable
from dataclasses import dataclass

from stillmotion.animate.clip import Clip
from stillmotion.animate.config import AnimateConfig

Cancel = Callable[[], bool]
"""Asked while a job runs; True ends it."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """Everything that can be checked is checked; the models are loaded next."""

    config: AnimateConfig
    """The job, with seed, device, dtype and guidance settled."""
    device: str
    """Where it is computed."""
    device_name: str
    """What that device calls itself."""
    dtype: str
    """How numbers are held."""
    notes: tuple[str, ...] = ()
    """What the user should know."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The models are loaded and motion is plugged in."""

    config: AnimateConfig
    """The job, with the size settled too."""
    seconds: float
    """How long that took; next to nothing where a session had them."""
    notes: tuple[str, ...] = ()
    """What the user should know."""


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """One denoising step of a clip."""

    clip: int
    """Which clip, from 0."""
    num_clips: int
    """Of how many."""
    step: int
    """Which step, from 1."""
    total: int
    """Of how many."""
    seconds: float
    """How long it took."""


@dataclass(frozen=True, kw_only=True)
class WindowDone:
    """One window of a step, in a clip that is seen in several."""

    clip: int
    """Which clip, from 0."""
    num_clips: int
    """Of how many."""
    step: int
    """Which step, from 1."""
    total: int
    """Of how many."""
    window: int
    """How many windows of the step are done."""
    windows: int
    """Of how many."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Some frames of a clip are decoded and handed to the writers."""

    clip: int
    """Which clip, from 0."""
    num_clips: int
    """Of how many."""
    frames: int
    """How many frames are done."""
    total: int
    """Of how many."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A clip is whole: in memory, and in its run folder where one was asked for."""

    clip: Clip
    """The clip."""


Event = Started | Loaded | WindowDone | StepDone | Decoding | Finished
"""Anything that a job yields, in this order; from the windows on for each clip."""
