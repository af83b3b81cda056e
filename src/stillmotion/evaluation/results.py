"""What an evaluation found, and the files that say it."""

import csv
import datetime as dt
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillmotion.evaluation.camera import SURE, UNCLEAR
from stillmotion.evaluation.config import EvaluateConfig
from stillmotion.evaluation.found import FoundClip
from stillmotion.evaluation.intervals import can_resample, interval_of, mean_of
from stillmotion.evaluation.measured import Measured
from stillmotion.evaluation.metrics import METRICS
from stillmotion.version import __version__

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class ClipResult:
    """What was measured of one clip."""

    name: str
    """Its name in the report."""
    path: Path
    """The file, or the folder of frames."""
    prompt: str
    """What it should show; empty if nothing says it."""
    num_frames: int
    """How many frames it has."""
    fps: float | None
    """Frames per second, where the file says."""
    width: int
    """Pixels across."""
    height: int
    """Pixels down."""
    values: Mapping[str, float]
    """A number by the metric's name."""
    series: Mapping[str, Sequence[float]]
    """Its course: an entry per frame, or per pair of neighbours, where a metric has one."""
    skipped: Mapping[str, str]
    """Why a metric has no number."""
    camera: str
    """The camera's motion in words; "unclear" where it is not to be trusted, empty where it was not measured."""


@dataclass(frozen=True, kw_only=True)
class MetricResult:
    """What was measured of all clips."""

    mean: float
    """The mean over clips; of factors (zoom, the loop's seam) the geometric mean."""
    interval: tuple[float, float] | None
    """The 95 % bootstrap interval of the mean over clips; None for a single clip, or without scipy."""
    num_clips: int
    """How many clips have a number."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A finished evaluation."""

    clips: tuple[ClipResult, ...]
    """Every clip."""
    metrics: Mapping[str, MetricResult]
    """Each metric that at least one clip has a number of."""
    skipped: Mapping[str, str]
    """Each metric that was asked for and that no clip has a number of, and why."""
    notes: tuple[str, ...]
    """What the reader should know."""
    config: EvaluateConfig
    """What was asked for."""
    clip_files: Mapping[str, str]
    """The sha256 of each weight file of the CLIP model; empty where none was read."""
    seconds: float
    """How long it took."""
    created: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))
    """When it was done."""
    folder: Path | None = None
    """Where it was written; None where it was not."""

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON holds it."""
        return {
            "schema": SCHEMA,
            "stillmotion": __version__,
            "created": self.created,
            "seconds": round(self.seconds, 3),
            "config": self.config.to_dict(),
            "clip": {"source": self.config.clip, "files": dict(self.clip_files)},
            "notes": list(self.notes),
            "metrics": {
                name: {
                    "mean": found.mean,
                    "interval": list(found.interval) if found.interval else None,
                    "num_clips": found.num_clips,
                    "unit": METRICS[name].unit,
                    "better": METRICS[name].better or None,
                }
                for name, found in self.metrics.items()
            },
            "skipped": dict(self.skipped),
            "clips": [_clip_to_dict(clip) for clip in self.clips],
        }

    def to_json(self) -> str:
        """Return it as JSON text."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """Return a table with a row per clip and a column per metric; a number that is not there is an empty cell."""
        names = [name for name in METRICS if name in self.metrics]
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["clip", "path", "prompt", "num_frames", "fps", "width", "height", "camera", *names])
        for clip in self.clips:
            numbers = [clip.values.get(name, "") for name in names]
            facts = [clip.num_frames, "" if clip.fps is None else clip.fps, clip.width, clip.height, clip.camera]
            table.writerow([_cell(clip.name), _cell(str(clip.path)), _cell(clip.prompt), *facts, *numbers])
        return text.getvalue()


def clip_result(found: FoundClip, measured: Measured, num_frames: int) -> ClipResult:
    """Return what was measured of a clip."""
    return ClipResult(
        name=found.name,
        path=found.path,
        prompt=found.prompt,
        num_frames=num_frames,
        fps=found.info.fps,
        width=found.info.width,
        height=found.info.height,
        values={name: measured.values[name] for name in METRICS if name in measured.values},
        series=measured.series,
        skipped=measured.skipped,
        camera=measured.camera,
    )


def summarise(
    clips: Sequence[ClipResult], config: EvaluateConfig
) -> tuple[dict[str, MetricResult], dict[str, str], list[str]]:
    """Return each metric over all clips, why the others are not there, and notes."""
    metrics: dict[str, MetricResult] = {}
    skipped: dict[str, str] = {}
    for name in config.metrics:
        values = [clip.values[name] for clip in clips if name in clip.values]
        if not values:
            reasons = dict.fromkeys(clip.skipped[name] for clip in clips if name in clip.skipped)
            skipped[name] = "; ".join(reasons)
            continue
        ratio = METRICS[name].ratio
        interval = None
        if can_resample():
            interval = interval_of(values, ratio=ratio, resamples=config.resamples, seed=config.seed, purpose=name)
        metrics[name] = MetricResult(mean=mean_of(values, ratio=ratio), interval=interval, num_clips=len(values))
    return metrics, skipped, list(_notes(clips))


def _notes(clips: Sequence[ClipResult]) -> Iterator[str]:
    if not can_resample() and len(clips) > 1:
        yield "Intervals are left out: scipy is not installed (pip install 'stillmotion[evaluation]')."
    if unclear := sum(clip.camera == UNCLEAR for clip in clips):
        yield (
            f"The camera's motion is unclear in {unclear} of {len(clips)} clips (confidence below {SURE:g}): what moves in the "
            "picture may have been taken for it."
        )


def _clip_to_dict(clip: ClipResult) -> dict[str, Any]:
    facts = {name: getattr(clip, name) for name in ("name", "prompt", "num_frames", "fps", "width", "height", "camera")}
    return {
        **facts,
        "path": str(clip.path),
        "values": dict(clip.values),
        "series": {name: [round(value, 6) for value in course] for name, course in clip.series.items()},
        "skipped": dict(clip.skipped),
    }


def _cell(text: str) -> str:
    """Return a text so that a spreadsheet does not take it for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text
