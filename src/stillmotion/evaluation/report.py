"""The report: JSON, CSV and one page that holds all it needs, in a folder that appears when it is whole."""

import datetime as dt
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stillmotion.errors import FileError
from stillmotion.evaluation.metrics import METRICS
from stillmotion.evaluation.pages import page
from stillmotion.evaluation.players import embedded_player
from stillmotion.evaluation.plots import course_plot, strip_plot
from stillmotion.evaluation.results import ClipResult, Evaluation

COURSES = ("text", "domain", "smoothness", "motion", "warping_error")
"""The metrics whose course over the frames is drawn for each clip."""


def write_report(found: Evaluation, output_dir: Path) -> Path:
    """Write `evaluation.json`, `evaluation.csv` and `report.html` into a new folder in `output_dir`; return the folder.

    Raises `FileError` where it cannot be written.
    """
    partial = output_dir / f".{uuid.uuid4().hex[:12]}.partial"
    try:
        partial.mkdir(parents=True)
        try:
            (partial / "evaluation.json").write_text(found.to_json(), encoding="utf-8")
            (partial / "evaluation.csv").write_text(found.to_csv(), encoding="utf-8")
            (partial / "report.html").write_text(report_page(found), encoding="utf-8")
            return _in_place(partial, output_dir)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise FileError(f"output_dir: {output_dir} cannot be written: {error.strerror}.") from error


def report_page(found: Evaluation) -> str:
    """Return the page: overview with plots, what was skipped, and each clip with its player."""
    players = [
        embedded_player(clip.path, found.config.player_size) if number < found.config.num_players else ""
        for number, clip in enumerate(found.clips)
    ]
    return page(
        "report.html",
        found=found,
        rows=list(_rows(found)),
        clips=[_card(clip, player) for clip, player in zip(found.clips, players, strict=True)],
        metrics=METRICS,
        shown=[name for name in METRICS if name in found.metrics],
    )


def _rows(found: Evaluation) -> Iterator[dict[str, Any]]:
    """Yield what a row of the overview shows."""
    for name, metric in METRICS.items():
        if name in found.metrics:
            result = found.metrics[name]
            values = [(clip.name, clip.values[name]) for clip in found.clips if name in clip.values]
            plot = strip_plot(values, result.mean, result.interval, metric.decimals)
            yield {"name": name, "metric": metric, "result": result, "plot": plot}


def _card(clip: ClipResult, player: str) -> dict[str, Any]:
    """Return what a clip's card shows."""
    courses = [
        (METRICS[name], course_plot(clip.series[name], METRICS[name].decimals))
        for name in COURSES
        if len(clip.series.get(name, ())) > 1 and name in clip.values
    ]
    return {"clip": clip, "player": player, "courses": courses}


def _in_place(partial: Path, output_dir: Path) -> Path:
    """Rename the folder after the time; a name that is taken gets a number."""
    name = dt.datetime.now().strftime("%Y%m%d-%H%M%S")  # noqa: DTZ005  # names are in the user's own time
    for number in range(1, 10_000):
        target = output_dir / (name if number == 1 else f"{name}-{number}")
        if target.exists():
            continue
        try:
            return partial.rename(target)
        except OSError:
            if not target.exists():
                raise
    raise FileError(f"output_dir: {output_dir} has ten thousand reports called {name}.")
