"""The front door: which verb, and how its end is told to the shell.

Exit codes: 0 done, 1 a fault of Stillmotion's own (with its traceback), 2 something that the user can mend (one message
on standard error; `--debug` shows the traceback too), 130 stopped by Ctrl-C.
"""

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from stillmotion import __version__
from stillmotion.allocator import keep_freed_memory
from stillmotion.cli.parsing import Parser, UsageError, nearest
from stillmotion.cli.screen import Screen
from stillmotion.cli.verb import Verb
from stillmotion.errors import Cancelled, StillmotionError


@dataclass(frozen=True)
class Entry:
    """A verb as the front door knows it, before its module is imported."""

    module: str
    sentence: str


VERBS = {
    "animate": Entry("stillmotion.cli.clips", "Make a clip from a prompt."),
    "plan": Entry(
        "stillmotion.cli.plan", "Show the windows of a clip and what they cost, before anything is rendered."
    ),
    "replay": Entry("stillmotion.cli.clips", "Make a clip again from the run.json beside it."),
    "inspect": Entry("stillmotion.cli.files", "Say what model files are, without loading a model."),
    "convert": Entry("stillmotion.cli.files", "Write a motion file in another program's dialect."),
    "train": Entry("stillmotion.cli.training", "Train a domain adapter, a motion module or a MotionLoRA."),
    "personalize": Entry("stillmotion.cli.personalize", "Teach an image model a subject or a style, from pictures."),
    "data prepare": Entry("stillmotion.cli.prepare", "Encode clips into a latent cache, for training."),
    "data camera": Entry("stillmotion.cli.camera", "Give clips and pictures a camera motion."),
    "evaluate": Entry("stillmotion.cli.evaluate", "Measure clips: CLIP scores, motion, steadiness; with a report."),
    "study report": Entry("stillmotion.cli.study", "Say how the raters of a study ranked the methods."),
    "study": Entry("stillmotion.cli.study", "Ask people, in a browser, which of several methods' clips are best."),
    "baseline text2video-zero": Entry("stillmotion.cli.baselines", "Make a clip by Text2Video-Zero, untrained."),
    "baseline tune-a-video": Entry("stillmotion.cli.baselines", "Make a clip by Tune-A-Video, tuned on one clip."),
    "toyworld draw": Entry("stillmotion.cli.toyworld", "Draw the toyworld's own clip of a caption: the ground truth."),
    "toyworld train": Entry("stillmotion.cli.toyworld", "Train the toyworld's weights anew."),
    "toyworld score": Entry("stillmotion.cli.toyworld", "Measure how often clips show what their captions say."),
    "claims": Entry("stillmotion.cli.claims", "Measure the paper's claims on the toyworld."),
    "bench step": Entry("stillmotion.cli.bench", "Time a denoising step against diffusers' motion UNet."),
    "bench plug": Entry("stillmotion.cli.bench", "Time plugging in against building diffusers' motion UNet."),
    "bench train": Entry("stillmotion.cli.bench", "Time a training step on cached latents against encoding each step."),
    "bench long": Entry("stillmotion.cli.bench", "Measure a long clip's memory, time and seams against a short one's."),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (the process's own by default) and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    keep_freed_memory()
    screen = Screen(plain="--plain" in words)
    try:
        return _run(words, screen)
    except Cancelled as stop:
        screen.note(str(stop) or "Stopped.")
        return 130
    except KeyboardInterrupt:
        screen.note("Stopped.")
        return 130
    except StillmotionError as error:
        if "--debug" in words:
            traceback.print_exc()
        screen.error(str(error))
        return 2


def _run(words: list[str], screen: Screen) -> int:
    if words[:1] in (["--version"], ["-V"]):
        screen.result(f"stillmotion {__version__}")
        return 0
    if not words or words[0] in ("-h", "--help", "help"):
        screen.result(_overview(""))
        return 0 if words else 2
    name = next((known for known in VERBS if words[: len(known.split())] == known.split()), None)
    if name is None:
        return _no_verb(words, screen)
    verb = find(name)
    parser = Parser(f"stillmotion {name}", verb.description)
    verb.add_arguments(parser)
    group = parser.add_argument_group("terminal")
    group.add_argument("--plain", action="store_true", help="No colours and no bars, as in a pipe.")
    group.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
    rest = words[len(name.split()) :]
    if {"-h", "--help"} & set(rest):
        screen.result(parser.format_help().rstrip())
        return 0
    return verb.run(parser.parse(rest), screen)


def find(name: str) -> Verb:
    """Import and return the verb called `name`."""
    verbs: dict[str, Verb] = import_module(VERBS[name].module).VERBS
    return verbs[name]


def _no_verb(words: list[str], screen: Screen) -> int:
    """Show a group's verbs if only the group is named; otherwise raise `UsageError` with the nearest verb."""
    group = [name for name in VERBS if name.split()[0] == words[0] and " " in name]
    if group and (len(words) == 1 or words[1] in ("-h", "--help")):
        screen.result(_overview(words[0]))
        return 0 if len(words) > 1 else 2
    said = " ".join(words[:2]) if group else words[0]
    raise UsageError(f"Unknown verb {said!r}{nearest(said, group or list(VERBS), 'verb')}.\nSee: stillmotion --help")


def _overview(group: str) -> str:
    """Return the verbs with a sentence each; all of them, or those of one group."""
    shown = {name: entry for name, entry in VERBS.items() if name.startswith(group)}
    wide = max(map(len, shown))
    return "\n".join(
        [
            f"Stillmotion {__version__} makes any Stable Diffusion checkpoint move.",
            "",
            "usage: stillmotion VERB ...    stillmotion VERB --help    stillmotion --version",
            "",
            "verbs:",
            *(f"  {name:<{wide}}  {entry.sentence}" for name, entry in shown.items()),
            "",
            "Try:",
            '  stillmotion animate "a red ball rolling right on green grass"',
        ]
    )
