"""What can be said about an evaluation. The command line and YAML read their fields here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from stillmotion.config import Config, Limits
from stillmotion.errors import ConfigError
from stillmotion.evaluation.metrics import NAMES, MetricName

TOYWORLD = "toyworld"
"""The name of the tiny CLIP model inside the package."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Config):
    """One job of measuring clips: which, against what, by which model, and where the report goes."""

    clips: tuple[str, ...] = ()
    """The clips: files, run folders, folders of frames, folders that hold clips, patterns such as "runs/*/clip.mp4"."""

    prompt: str | None = None
    """What all clips should show, in words; by default what their run.json, metadata or a .txt beside them says."""

    prompts: Path | None = None
    """A CSV with the columns file and prompt, for clips that do not say theirs."""

    references: Path | None = None
    """A folder of pictures by the image model; pictures in a folder called like a clip are for that clip alone."""

    clip: Annotated[str, Limits(blank=False)] = TOYWORLD
    """The CLIP model that scores: a folder, a hub id, or "toyworld" for the tiny one inside the package."""

    metrics: tuple[MetricName, ...] = NAMES
    """What is measured."""

    resamples: Annotated[int, Limits(minimum=100, maximum=1_000_000)] = 9999
    """How many times the clips are drawn anew for the 95 % intervals."""

    seed: Annotated[int, Limits(as_text=True)] = 0
    """Where the chance of the intervals comes from."""

    num_players: Annotated[int, Limits(minimum=0)] = 60
    """How many clips can be played in the report; the others are in its table only."""

    player_size: Annotated[int, Limits(minimum=32, maximum=2048)] = 256
    """How many pixels the longer side of a clip has in the report, at most."""

    output_dir: Path | None = None
    """Where a folder for the report is made, evaluations on the command line; without it nothing is written."""

    device: Annotated[str, Limits(blank=False)] = "auto"
    """Where the CLIP model computes: cpu, cuda, cuda:1, mps, or auto for the best there is."""

    def check(self) -> None:
        """Refuse a job without clips or metrics."""
        if not self.clips:
            raise ConfigError("clips: expected at least one clip, run folder, folder of clips or pattern")
        if not self.metrics:
            raise ConfigError(f"metrics: expected at least one of {', '.join(NAMES)}")
