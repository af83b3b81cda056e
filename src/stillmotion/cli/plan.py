"""`plan`: what a clip will be made of, before anything is rendered."""

import argparse
from pathlib import Path

from stillmotion.cli.clips import GROUPS, SHORTS, configs_from
from stillmotion.cli.parsing import Parser, add_config_flags
from stillmotion.cli.screen import Screen
from stillmotion.cli.verb import Verb

_STEPS_SHOWN = 8


def _plan_arguments(parser: Parser) -> None:
    import stillmotion as sm

    add_config_flags(parser, sm.AnimateConfig, groups=GROUPS, shorts=SHORTS, positional=["prompt"])
    parser.add_argument(
        "--draw", metavar="FILE.png", type=Path, help="Draw the windows of every step as a picture, too."
    )


def _plan(arguments: argparse.Namespace, screen: Screen) -> int:
    from stillmotion.animate.outline import Outline, drawn

    configs = configs_from(arguments, screen)
    for number, config in enumerate(configs):
        if number:
            screen.result("")
        outline = Outline.of(config)
        for note in outline.notes:
            screen.note(note)
        screen.facts(outline.facts())
        screen.result("")
        screen.table(("step", "windows"), outline.step_rows(_STEPS_SHOWN))
        if rows := outline.travel_rows():
            screen.result("")
            screen.table(("frame", "what", "value"), rows)
        if arguments.draw is not None:
            path = (
                arguments.draw if len(configs) == 1 else arguments.draw.with_stem(f"{arguments.draw.stem}-{number + 1}")
            )
            screen.result(str(drawn(outline, path)))
    return 0


VERBS = {
    "plan": Verb(
        description="Check a job as animate does, and show its windows, what they cost, and what travels over its frames. "
        "Nothing is loaded or rendered.",
        add_arguments=_plan_arguments,
        run=_plan,
    ),
}
