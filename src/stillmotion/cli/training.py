"""`train`: the three stages of the paper, from a YAML file or from flags."""

import argparse
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import stillmotion as sm
from stillmotion.cli.parsing import Parser, add_config_flags, config_from
from stillmotion.cli.screen import ProgressView, Screen
from stillmotion.cli.verb import Verb

if TYPE_CHECKING:
    from stillmotion.training import TrainEvent

STAGES = ("domain-adapter", "motion-module", "motion-lora")
GROUPS = {
    "clips": [
        "video_folder",
        "caption",
        "num_frames",
        "frame_stride",
        "width",
        "height",
        "short_clips",
        "buckets",
        "horizontal_flip",
    ],
    "models": ["model", "vae", "motion", "variant", "architecture", "domain_adapter", "rank"],
    "steps": [
        "num_steps",
        "batch_size",
        "micro_batch_size",
        "learning_rate",
        "warmup_steps",
        "decay_from",
        "ema_decay",
    ],
    "loss": ["caption_dropout", "snr_gamma", "timestep_bias", "noise_offset", "appearance_debias"],
    "output": [
        "output_dir",
        "checkpoint_every",
        "validate_every",
        "motion_guard",
        "sample_every",
        "sample_prompts",
        "dialects",
    ],
    "machine": ["device", "precision", "gradient_checkpointing", "num_workers"],
}


class TrainView:
    """Shows the events of a training."""

    def __init__(self, screen: Screen, progress: ProgressView, what: str = "clips") -> None:
        self._screen, self._progress, self._what = screen, progress, what
        self._batch_size = 1
        self._loss, self._seconds, self._waiting = 0.0, 0.0, 0.0

    def show(self, event: "TrainEvent") -> None:
        """Show one event."""
        from stillmotion.training import ClassPicture, Prepared, Sampled, Saved, Trained, Validated

        if isinstance(event, ClassPicture):
            self._progress.show("class pictures", event.made, event.total)
        elif isinstance(event, Prepared):
            self._batch_size = event.config.batch_size
            skipped = f", {event.num_skipped} too short" if event.num_skipped else ""
            self._screen.note(f"{event.num_clips} {self._what}{skipped}; {event.num_parameters:,} numbers to train")
            if event.first_step:
                self._screen.note(f"going on from step {event.first_step}")
            for note in event.notes:
                self._screen.note(note)
        elif isinstance(event, Trained):
            share = 0.02 if self._seconds else 1.0  # a running average, so that the line does not jump
            self._loss += share * (event.loss - self._loss)
            self._seconds += share * (event.seconds - self._seconds)
            self._waiting += share * (event.waiting - self._waiting)
            rate, waiting = self._batch_size / self._seconds, self._waiting / self._seconds
            self._progress.show(
                "training",
                event.step,
                event.num_steps,
                f"loss {self._loss:.4f}, {rate:.2f} {self._what}/s, {waiting:.0%} reading",
            )
        elif isinstance(event, Validated):
            motion = "" if event.motion is None else f", motion {event.motion:.3f}"
            self._screen.note(f"step {event.step}: validation loss {event.loss:.4f}{motion}")
        elif isinstance(event, Sampled):
            self._screen.note(f"step {event.step}: {event.path}")
        elif isinstance(event, Saved):
            for path in event.files:
                self._screen.result(str(path))


class Asked:
    """Whether a signal asked the run to stop, and which."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> bool:
        """Return whether it did."""
        return bool(self.number)

    def ask(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # what `signal` calls
        """Take a signal; a second Ctrl-C interrupts at once."""
        if self.number == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number


@contextmanager
def asked_to_stop() -> Iterator[Asked]:
    """Give what knows whether Ctrl-C or SIGTERM came."""
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, asked.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow(
    screen: Screen, begin: Callable[[Callable[[], bool]], Iterator["TrainEvent"]], output_dir: Path, what: str = "clips"
) -> int:
    """Show a training that `begin` starts, told how to know whether it is asked to stop; return the exit code."""
    from stillmotion.training import Saved

    with screen.progress() as progress, asked_to_stop() as stop:
        view = TrainView(screen, progress, what)
        for event in begin(stop):
            view.show(event)
            if isinstance(event, Saved):
                return 0
    screen.note(f"Stopped. The state is kept in {output_dir}; the same command goes on from there.")
    return 130 if stop.number == signal.SIGINT else 0  # a scheduler that asked politely has been obeyed


def _train_arguments(parser: Parser) -> None:
    parser.add_argument("stage", choices=STAGES, help="What is trained.")
    add_config_flags(
        parser, sm.TrainConfig, groups=GROUPS, shorts={"output_dir": "-o", "num_steps": "-s"}, positional=["data"]
    )


def _train(arguments: argparse.Namespace, screen: Screen) -> int:
    from stillmotion.t2i.quiet import hide_loading_bars
    from stillmotion.training import training

    arguments.stage = arguments.stage.replace("-", "_")
    config = config_from(sm.TrainConfig, arguments)
    hide_loading_bars()
    return follow(screen, lambda stop: training(config, stop=stop), config.output_dir)


VERBS = {
    "train": Verb(
        description="Train one stage of the paper: a domain adapter on single frames, a motion module on clips, or a "
        "MotionLoRA on 20 to 50 clips of one motion. Stopped at any moment, the same command goes on exactly where the "
        "run stood.",
        add_arguments=_train_arguments,
        run=_train,
    ),
}
