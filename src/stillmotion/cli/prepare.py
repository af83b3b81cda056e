"""`data prepare`: clips into a latent cache, by one process or several."""

import argparse
import re
from dataclasses import fields
from typing import TYPE_CHECKING

from stillmotion.cli.clips import ctrl_c
from stillmotion.cli.parsing import Parser
from stillmotion.cli.screen import ProgressView, Screen
from stillmotion.cli.verb import Verb
from stillmotion.errors import ConfigError

if TYPE_CHECKING:
    from stillmotion.training.preparing import PrepareConfig, PrepareEvent


def _arguments(parser: Parser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="The clips: a folder with a text beside each, a folder with metadata.csv or metadata.jsonl, a CSV of videoid "
        "and name, tar shards (clips-{000..009}.tar), or one clip.",
    )
    parser.add_argument(
        "-o", "--out", required=True, metavar="PATH", help="The cache: a new folder, or one to be gone on with."
    )
    parser.add_argument("--video-folder", metavar="PATH", help="Where the files of a CSV of videoids lie.")
    model = parser.add_argument_group("what encodes")
    model.add_argument("-m", "--model", default="toyworld", help="The image model whose VAE encodes. [toyworld]")
    model.add_argument("--vae", metavar="PATH", help="Another VAE than the model's own: a folder or a file.")
    model.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps, or auto for the best there is. [auto]")
    model.add_argument(
        "--vae-dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="How the VAE computes; half precision is faster on a GPU, and less exact. [float32]",
    )
    model.add_argument("--batch", type=int, default=8, metavar="N", help="How many frames are encoded at once. [8]")
    kept = parser.add_argument_group("what is kept")
    kept.add_argument("-W", "--width", type=int, metavar="N", help="Width in pixels. [256; 128 for the toyworld]")
    kept.add_argument("-H", "--height", type=int, metavar="N", help="Height in pixels. [256; 128 for the toyworld]")
    kept.add_argument("--buckets", action="store_true", help="Keep about each clip's own shape, in the same area.")
    kept.add_argument("--keep-every", type=int, default=1, metavar="N", help="Cache every Nth frame only. [1]")
    kept.add_argument(
        "--dtype",
        choices=("float16", "bfloat16", "float32"),
        default="float16",
        help="How the latents are stored. [float16]",
    )
    several = parser.add_argument_group("several processes")
    several.add_argument("--workers", type=int, default=1, metavar="N", help="Processes on this machine. [1]")
    several.add_argument(
        "--worker",
        metavar="I/N",
        help="Do the Ith of N shares, counted from 0: for several machines. By default what torchrun says, else all.",
    )


def _prepare(arguments: argparse.Namespace, screen: Screen) -> int:
    from stillmotion.training.preparing import preparing

    config = _config(arguments)
    with screen.progress() as progress, ctrl_c() as pressed:
        view = PrepareView(screen, progress)
        for event in preparing(config, cancel=pressed):
            view.show(event)
    screen.result(str(arguments.out))
    return 0


class PrepareView:
    """Shows the events of the filling of a cache."""

    def __init__(self, screen: Screen, progress: ProgressView) -> None:
        self._screen, self._progress = screen, progress

    def show(self, event: "PrepareEvent") -> None:
        """Show one event."""
        from stillmotion.training.preparing import CacheFilled, SourceFound

        if isinstance(event, SourceFound):
            count, empty = event.num_clips, event.num_without_caption
            said = f", {empty} of them without a caption" if empty else ""
            said = ", none with a caption" if empty == count else said
            self._screen.note(f"{count} clip{'s' * (count != 1)} in {event.name}{said}")
        elif isinstance(event, CacheFilled):
            counts = {
                "encoded": event.num_encoded,
                "there from before": event.num_kept,
                "broken (see quarantine.jsonl)": event.num_broken,
            }
            counted = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
            header = event.header
            self._screen.note(f"{counted or 'no clips in this share'}; {header.width}x{header.height}, {header.dtype}")
        else:
            if event.state == "broken":
                self._screen.note(f"set aside: {event.reason}")
            self._progress.show("encoding clips", event.done, event.total)


def _config(arguments: argparse.Namespace) -> "PrepareConfig":
    """Return what the flags say; raise `ConfigError` that names the flag."""
    from stillmotion.training.preparing import PrepareConfig

    _check_counts(arguments)
    worker = _share(arguments.worker)
    if worker is not None and arguments.workers > 1:
        raise ConfigError("--worker: it names the one share that this process does; leave --workers out")
    given = {field.name: getattr(arguments, field.name) for field in fields(PrepareConfig)}
    return PrepareConfig(**{**given, "worker": worker})


def _share(said: str | None) -> tuple[int, int] | None:
    """Return which share "I/N" is, and of how many."""
    if said is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", said)
    if not found or int(found[1]) >= int(found[2]):
        raise ConfigError(f"--worker: expected I/N with I from 0 to N - 1, as in 0/4, got {said!r}")
    return int(found[1]), int(found[2])


def _check_counts(arguments: argparse.Namespace) -> None:
    for name in ("batch", "keep_every", "workers", "width", "height"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')}: expected an integer >= 1, got {value}")


VERBS = {
    "data prepare": Verb(
        description="Encode clips into a latent cache, once, so that training neither decodes nor encodes: of each frame "
        "the VAE's mean and log-variance. Where training clips start and how fast they run is still drawn anew, each time."
        "\n\nIt can be stopped and killed at any time, and the same command goes on. Broken clips are set aside in "
        "quarantine.jsonl; if more than 5 % are, it stops.",
        add_arguments=_arguments,
        run=_prepare,
    ),
}
