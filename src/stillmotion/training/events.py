"""What a training tells while it runs."""

from dataclasses import dataclass
from pathlib import Path

from stillmotion.training.run_config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Models and clips are ready; the first step comes next."""

    config: RunConfig
    """With every value settled."""
    num_clips: int
    """Clips, or pictures, that are trained on."""
    num_skipped: int
    """Clips that are too short."""
    num_parameters: int
    """Numbers that are trained."""
    first_step: int
    """The step that the run goes on from; 0 for a new one."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ClassPicture:
    """A picture of the class was made by the model as it was, for prior preservation; before `Prepared`."""

    made: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A step done."""

    step: int
    num_steps: int
    loss: float
    seconds: float
    """What the step took, reading included and its checkpoint left out."""
    waiting: float
    """Seconds of it spent waiting for clips."""


@dataclass(frozen=True, kw_only=True)
class Validated:
    """What the fixed clips show; at step 0 what a fine-tuning began with."""

    step: int
    loss: float
    """Mean squared error over eight timesteps."""
    motion: float | None = None
    """How far what is made of their noise moves as they do, at most 1; None where nothing moves."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """A sample clip was made."""

    step: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class Saved:
    """The trained weights are written, in every dialect asked for; the run is over."""

    files: tuple[Path, ...]


TrainEvent = ClassPicture | Prepared | Trained | Validated | Sampled | Saved
