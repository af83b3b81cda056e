"""`evaluate`: the measures of clips, as a table here and as a report in a folder."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import stillmotion as sm
from stillmotion.cli.clips import ctrl_c
from stillmotion.cli.parsing import Parser, add_config_flags, config_from
from stillmotion.cli.screen import Screen
from stillmotion.cli.verb import Verb

if TYPE_CHECKING:
    from stillmotion.evaluation import Metric

OUTPUT_DIR = Path("evaluations")

GROUPS = {
    "against what": ["prompt", "prompts", "references"],
    "measures": ["metrics", "clip", "resamples", "seed"],
    "report": ["output_dir", "num_players", "player_size"],
    "machine": ["device"],
}
SHORTS = {"prompt": "-p", "references": "-r", "output_dir": "-o"}


def _arguments(parser: Parser) -> None:
    add_config_flags(parser, sm.EvaluateConfig, groups=GROUPS, shorts=SHORTS, positional=["clips"])


def _evaluate(arguments: argparse.Namespace, screen: Screen) -> int:
    config = config_from(sm.EvaluateConfig, arguments)
    if config.output_dir is None:
        config = config.replace(output_dir=OUTPUT_DIR)
    from stillmotion.evaluation import ClipMeasured, evaluation
    from stillmotion.t2i.quiet import hide_loading_bars

    hide_loading_bars()
    found = None
    with screen.progress() as progress, ctrl_c() as pressed:
        for event in evaluation(config, cancel=pressed):
            if isinstance(event, ClipMeasured):
                progress.show("measuring", event.done, event.total, event.clip.name)
            else:
                found = event.evaluation
    if found is not None:
        _show(found, screen)
    return 0


def _show(found: "sm.Evaluation", screen: Screen) -> None:
    from stillmotion.evaluation import METRICS

    screen.table(
        ("measure", "mean", "95 % interval", "clips", "unit"),
        [
            (
                METRICS[name].title,
                _number(result.mean, METRICS[name]),
                " to ".join(_number(end, METRICS[name]) for end in result.interval) if result.interval else "-",
                str(result.num_clips),
                METRICS[name].unit,
            )
            for name, result in found.metrics.items()
        ],
    )
    for name, reason in found.skipped.items():
        screen.note(f"{METRICS[name].title} is skipped: {reason}")
    for note in found.notes:
        screen.note(note)
    if found.folder is not None:
        screen.result(str(found.folder / "report.html"))


def _number(value: float, metric: "Metric") -> str:
    return f"{value:.{metric.decimals}f}"


VERBS = {
    "evaluate": Verb(
        description="Measure clips: the paper's CLIP scores (text, domain, smoothness), how much moves and what the camera "
        "does, by optical flow, and how steady the picture is. Each has a mean over the clips and a 95 % interval; a folder "
        "gets report.html, evaluation.json and evaluation.csv.\n\n"
        "What cannot be measured, since its model or its inputs are not there, is listed as skipped with the reason.",
        add_arguments=_arguments,
        run=_evaluate,
    ),
}
