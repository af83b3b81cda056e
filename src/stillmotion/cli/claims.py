"""`claims`: the paper's claims, measured on the toyworld."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stillmotion.cli.parsing import Parser
from stillmotion.cli.screen import Screen
from stillmotion.cli.verb import Verb

if TYPE_CHECKING:
    from stillmotion.claims.finding import Budget


def _arguments(parser: Parser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="Which claims, C1 to C9; all by default.")
    parser.add_argument(
        "--share",
        type=float,
        default=1.0,
        metavar="X",
        help="The share of the clips that are made, for a quick look. [1]",
    )
    parser.add_argument("--seed", type=int, default=7, metavar="N", help="Draws captions and noise. [7]")
    parser.add_argument(
        "--sheets", type=Path, metavar="FOLDER", help="Write each clip's contact sheet here, to look at."
    )
    parser.add_argument(
        "--retrain", action="store_true", help="Train anew what ships for the claims: adapters, styles, the ControlNet."
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("runs/claims"),
        metavar="FOLDER",
        help="Where findings, and what is trained on the way, are kept; a run in it goes on. [runs/claims]",
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="How many claims are measured at once, each on its cores. [1]"
    )
    parser.add_argument("--again", action="store_true", help="Measure anew what a run in the folder has found already.")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="Write the report here, and its plots beside.")


def _run(arguments: argparse.Namespace, screen: Screen) -> int:
    from stillmotion.claims.all_claims import CLAIMS
    from stillmotion.claims.finding import Budget, Progress
    from stillmotion.claims.kept import found_before
    from stillmotion.claims.report import row, write_report
    from stillmotion.claims.side_by_side import measured
    from stillmotion.errors import ConfigError
    from stillmotion.t2i.quiet import hide_loading_bars

    if unknown := [name for name in arguments.names if name.upper() not in CLAIMS]:
        raise ConfigError(f"claims: expected names out of {', '.join(CLAIMS)}, got {unknown[0]!r}")
    if not 0 < arguments.share <= 1:
        raise ConfigError(f"--share: expected a number above 0 and up to 1, got {arguments.share}")
    if arguments.jobs < 1:
        raise ConfigError(f"--jobs: expected 1 or more, got {arguments.jobs}")
    if arguments.jobs > 1 and arguments.retrain:
        raise ConfigError("--jobs: expected 1 with --retrain, since stages of the recipe follow one another")
    if arguments.write is not None and not arguments.write.absolute().parent.is_dir():
        raise ConfigError(f"--write: there is no folder {arguments.write.absolute().parent}; make it first")
    if arguments.write is not None and not arguments.write.suffix:
        raise ConfigError(f"--write: expected a file that ends in .md, got {arguments.write}")
    budget = Budget(
        share=arguments.share,
        seed=arguments.seed,
        sheets=arguments.sheets,
        retrain=arguments.retrain,
        folder=arguments.folder,
    )
    hide_loading_bars()
    chosen = [name.upper() for name in arguments.names] or _measurable(screen, budget)
    before = {name: found_before(CLAIMS[name], budget, again=arguments.again) for name in chosen}
    found = {name: told for name, told in before.items() if told}
    open_ones = [CLAIMS[name] for name in chosen if name not in found]
    with screen.progress() as progress:
        for name, told in measured(open_ones, budget, jobs=arguments.jobs):
            if isinstance(told, Progress):
                progress.show(f"{name} {told.what}".rstrip(), told.done, told.total)
            else:
                found[name] = told
    found = {name: found[name] for name in chosen}
    for name, (finding, seconds) in found.items():
        screen.note(f"{name}: {CLAIMS[name].sentence} ({seconds / 60:.1f} minutes)")
        screen.table(
            ["figure", "mean", "95 % interval", "clips", "wanted"], [row(figure) for figure in finding.figures]
        )
        screen.note(f"{name} {'holds' if finding.holds else 'does not hold'}. {CLAIMS[name].note}".rstrip())
    if arguments.write is not None:
        write_report(found, arguments.write)
    return 0 if all(finding.holds for finding, _ in found.values()) else 1


def _measurable(screen: Screen, budget: "Budget") -> list[str]:
    """Return the claims that can be measured, or were after their own training; say which are left out and why."""
    from stillmotion.claims.all_claims import CLAIMS
    from stillmotion.claims.kept import found_before
    from stillmotion.errors import FileError

    names: list[str] = []
    for name, claim in CLAIMS.items():
        try:
            found_before(claim, budget, again=True)
            names.append(name)
        except FileError as error:
            screen.note(f"{name} is left out: {error}")
    return names


VERBS = {
    "claims": Verb(
        description="Measure the paper's claims on the toyworld, each with its interval, and say whether they hold. Exit "
        "code 1 if one does not.",
        add_arguments=_arguments,
        run=_run,
    ),
}
