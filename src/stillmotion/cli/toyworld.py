"""`toyworld draw`, `train` and `score`: the little world that ships with Stillmotion."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stillmotion.cli.parsing import Parser
from stillmotion.cli.screen import Screen
from stillmotion.cli.verb import Verb
from stillmotion.config import from_dict, read_yaml, with_overrides

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def _draw_arguments(parser: Parser) -> None:
    parser.add_argument("caption", help='What to draw, as the toyworld says it: "a red ball rolling right".')
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="Draws what the caption leaves open. [0]")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("drawn.gif"), metavar="PATH", help="The clip to write. [drawn.gif]"
    )
    parser.add_argument(
        "--depth", type=Path, metavar="PATH", help="Write its depth here too, as a ControlNet for depth reads it."
    )


def _draw(arguments: argparse.Namespace, screen: Screen) -> int:
    from stillmotion.data import write_clip
    from stillmotion.toyworld import draw_clips, parse
    from stillmotion.toyworld.drawing import draw_depth

    def frames(pixels: "Tensor") -> "np.ndarray":
        return ((pixels + 1) * 127.5).round().clamp(0, 255).byte().movedim(1, -1).contiguous().numpy()

    drawn = draw_clips([parse(arguments.caption)], seed=arguments.seed, indices=[0])
    screen.result(str(write_clip(frames(drawn.pixels[0].movedim(0, 1)), arguments.output, 8).path))
    if arguments.depth is not None:
        depth = draw_depth(drawn.look, drawn.poses)
        screen.result(str(write_clip(frames(depth), arguments.depth, 8).path))
    return 0


def _train_arguments(parser: Parser) -> None:
    parser.add_argument("--folder", metavar="PATH", help="Where checkpoints, caches and weights go. [runs/toyworld]")
    parser.add_argument("--device", metavar="DEVICE", help="cpu or cuda. [cpu]")
    parser.add_argument("--only", metavar="STAGE", help="Train this stage alone.")
    parser.add_argument("-c", "--config", metavar="FILE.yaml", help="Read the recipe's fields from a YAML file.")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="Change one field: --set vae.num_steps=100."
    )


def _train(arguments: argparse.Namespace, screen: Screen) -> int:
    from stillmotion.claims.recipe import RecipeConfig, ablations, cook, finish, stages
    from stillmotion.config import to_dict
    from stillmotion.errors import ConfigError

    flags = {name: value for name in ("folder", "device") if (value := getattr(arguments, name)) is not None}
    written = read_yaml(arguments.config) if arguments.config else {}
    # Nested fields keep the recipe's own values where only some are given.
    whole = with_overrides({**to_dict(RecipeConfig()), **written}, arguments.set)
    config = from_dict(RecipeConfig, {**whole, **flags})
    known = stages(config)
    named = [*known, *ablations(config)]
    if arguments.only not in (None, *named):
        raise ConfigError(f"--only: expected one of {', '.join(named)}, got {arguments.only!r}")
    with screen.progress() as progress:
        for step in cook(config, only=arguments.only):
            progress.show(step.stage, step.done.step, step.done.num_steps, f"loss {step.done.loss:.4f}")
    missing = [name for name, (mark, _) in known.items() if not mark.exists()]
    if missing:
        screen.note(f"Still to train: {', '.join(missing)}.")
    else:
        screen.result(str(finish(config)))
    return 0


def _score_arguments(parser: Parser) -> None:
    parser.add_argument("--count", type=int, default=40, metavar="N", help="How many captions are drawn. [40]")
    parser.add_argument("--seed", type=int, default=7, metavar="N", help="What draws them, and their clips' noise. [7]")
    parser.add_argument(
        "--truth", action="store_true", help="Judge drawn clips instead: what the judge itself gets right."
    )
    parser.add_argument(
        "--sheets", type=Path, metavar="FOLDER", help="Write each clip's contact sheet here, to look at."
    )


def _score(arguments: argparse.Namespace, screen: Screen) -> int:
    from stillmotion.claims.score import WANTED, WANTED_PER_WORD, score, score_truth, summarise
    from stillmotion.data import contact_sheet
    from stillmotion.t2i.quiet import hide_loading_bars

    hide_loading_bars()
    scored = []
    with screen.progress() as progress:
        for one in (score_truth if arguments.truth else score)(count=arguments.count, seed=arguments.seed):
            scored.append(one)
            progress.show("scoring", len(scored), arguments.count)
            if arguments.sheets:
                right = "right" if one.verdict.motion else "wrong"
                name = f"{len(scored):03}-{right}-{one.caption.replace(' ', '-')}.png"
                contact_sheet(one.frames, arguments.sheets / name)
    summary = summarise(scored)
    rows = [[name, f"{share:.1%}", f"{WANTED[name]:.0%}"] for name, share in summary.right.items()]
    rows += [
        [word, f"{good} of {asked}", f"{WANTED_PER_WORD:.0%}"] for word, (good, asked) in summary.by_motion.items()
    ]
    screen.table(["what is right", "of the clips", "wanted"], rows)
    screen.note(f"{summary.count} clips: {'as wanted' if summary.passed else 'less than wanted'}")
    return 0 if summary.passed else 1


VERBS = {
    "toyworld draw": Verb(
        description="Draw the toyworld's own clip of a caption: what the tiny models were trained to make, and what they "
        "are measured against.",
        add_arguments=_draw_arguments,
        run=_draw,
    ),
    "toyworld train": Verb(
        description="Train the toyworld's models anew: VAE, CLIP pair, base model, judge, motion module, and what is "
        "trained over them: the ControlNet, MotionLoRAs, a style, a word, the domain adapter. Each stage "
        "goes on from its newest checkpoint, so it can be stopped and started again at any moment.",
        add_arguments=_train_arguments,
        run=_train,
    ),
    "toyworld score": Verb(
        description="Animate captions drawn at random, let the toyworld's judge read the clips back, and say how often "
        "colour, place, shape, motion and identity are right. Exit code 1 if less than wanted.",
        add_arguments=_score_arguments,
        run=_score,
    ),
}
