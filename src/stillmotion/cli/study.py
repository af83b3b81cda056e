"""`study` and `study report`: the page that raters see, and what they said."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from stillmotion.cli.parsing import Parser, add_config_flags, config_from
from stillmotion.cli.screen import Screen
from stillmotion.cli.verb import Verb

if TYPE_CHECKING:
    from stillmotion.evaluation.study import StudyResult

GROUPS = {
    "what is asked": ["questions", "references", "prompt", "prompts"],
    "the study": ["answers", "seed", "port"],
}
SHORTS = {"references": "-r", "answers": "-o", "prompt": "-p"}


def _arguments(parser: Parser) -> None:
    from stillmotion.evaluation.study.config import StudyConfig

    add_config_flags(parser, StudyConfig, groups=GROUPS, shorts=SHORTS, positional=["methods"])


def _study(arguments: argparse.Namespace, screen: Screen) -> int:
    from stillmotion.evaluation.study.config import StudyConfig

    config = config_from(StudyConfig, arguments)
    from stillmotion.evaluation.study import Answers, StudyServer, plan_study

    study = plan_study(config)
    answers = Answers(config.answers, study)
    for note in study.notes:
        screen.note(note)
    screen.note(f"{len(study.items)} prompts, {len(study.methods)} methods, asked for: {', '.join(study.questions)}")
    with screen.progress() as progress:
        server = StudyServer(
            study,
            answers,
            port=config.port,
            progress=lambda done, total: progress.show("preparing clips", done, total),
        )
    screen.result(server.url)
    screen.note(f"Open it in a browser. Answers go to {config.answers}; Ctrl-C ends, the same command goes on.")
    try:
        server.serve()
    except KeyboardInterrupt:
        screen.note(f"Stopped. What they say: stillmotion study report {config.answers}")
    finally:
        server.close()
    return 0


def _report_arguments(parser: Parser) -> None:
    parser.add_argument(
        "answers",
        metavar="ANSWERS.jsonl",
        nargs="?",
        type=Path,
        default=Path("answers.jsonl"),
        help="The file of answers. [answers.jsonl]",
    )
    parser.add_argument("--json", action="store_true", help="Print it as JSON, with the intervals and all tests.")


def _report(arguments: argparse.Namespace, screen: Screen) -> int:
    from stillmotion.evaluation.study import rank

    result = rank(arguments.answers)
    if arguments.json:
        screen.result(json.dumps(result.to_dict(), indent=1, ensure_ascii=False))
        return 0
    screen.note(
        f"{result.num_raters} raters, {result.num_answers} answers. Higher is better, {len(result.methods)} is best."
    )
    _table(result, screen)
    for one in result.questions:
        for test in one.tests:
            number = f"chi2 = {test.statistic:.2f}" if test.name == "Friedman" else f"share = {test.statistic:.2f}"
            screen.result(
                f"{one.question}: {test.name} over {test.num_blocks} {test.blocks}: {number}, p = {test.p:.4g}"
            )
    for note in result.notes:
        screen.note(note)
    return 0


def _table(result: "StudyResult", screen: Screen) -> None:
    """Print the Average User Ranking, a row per method."""
    rows = []
    for method in result.methods:
        cells = [method]
        for one in result.questions:
            ends = one.interval[method]
            cells.append(f"{one.average[method]:.3f}" + (f" ({ends[0]:.2f} to {ends[1]:.2f})" if ends else ""))
        rows.append(cells)
    screen.table(("method", *(one.question for one in result.questions)), rows)


VERBS = {
    "study": Verb(
        description="Ask people which clips are best, as the paper does: for each prompt the clips of all methods stand side "
        "by side, in an order of chance and without a name, and are ranked by text, domain and smoothness.\n\n"
        "Give a folder of clips for each method, with the same file names in all. The page is served to this machine alone; "
        "each answer is kept at once, and a rater who comes back goes on.",
        add_arguments=_arguments,
        run=_study,
    ),
    "study report": Verb(
        description="Say how the raters ranked the methods: the Average User Ranking with its 95 % interval, and whether the "
        "methods differ at all (Friedman's test; of two methods the sign test).",
        add_arguments=_report_arguments,
        run=_report,
    ),
}
