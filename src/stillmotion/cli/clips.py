"""`animate` and `replay`: clips from prompts, and again from their record."""

import argparse
import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import stillmotion as sm
from stillmotion.cli.parsing import Parser, add_config_flags, config_from, config_of
from stillmotion.cli.screen import ProgressView, Screen
from stillmotion.cli.verb import Verb

OUTPUT_DIR = Path("outputs")

GROUPS = {
    "what is seen": ["negative_prompt", "num_frames", "width", "height", "fps", "seed", "num_clips"],
    "models": ["model", "vae", "motion", "variant", "motion_norm", "motion_loras", "domain_adapter"],
    "what the model is taught": [
        "loras",
        "embeddings",
        "custom_diffusion",
        "allow_partial",
        "trigger_words",
        "clip_skip",
    ],
    "what steers it": ["controls", "image", "last_image", "video", "denoise"],
    "what travels": [
        "prompt_map",
        "negative_map",
        "head_prompt",
        "tail_prompt",
        "hold_ratio",
        "prompt_blend",
        "motion_strength",
        "motion_lora_strengths",
    ],
    "long clips": [
        "loop",
        "context",
        "context_length",
        "context_overlap",
        "context_dilation",
        "context_fusion",
        "noise",
        "freeinit_passes",
        "freeinit_filter",
        "freeinit_spatial",
        "freeinit_temporal",
    ],
    "sampling": ["num_inference_steps", "guidance_scale", "sampler", "noise_schedule"],
    "larger and smoother": ["upscale", "upscale_denoise", "interpolate"],
    "output": ["output_dir", "formats", "state_every"],
    "machine": ["device", "dtype", "offload", "decode_chunk"],
}
SHORTS = {
    "num_frames": "-L",
    "width": "-W",
    "height": "-H",
    "num_inference_steps": "-s",
    "negative_prompt": "-n",
    "model": "-m",
    "output_dir": "-o",
}


class ClipView:
    """Shows the events of a job, and remembers which clips are finished."""

    def __init__(self, screen: Screen, progress: ProgressView) -> None:
        self._screen, self._progress = screen, progress
        self.finished: list[sm.Clip] = []

    def show(self, event: "sm.Event") -> None:
        """Show one event; of a finished clip, where its files are."""
        if isinstance(event, sm.Started):
            name = "" if event.device_name == event.device else f" ({event.device_name})"
            self._screen.note(f"{event.device}{name}, {event.dtype}, seed {event.config.seed}")
            self._tell(event.notes)
            self._progress.show("loading models", 0, None)
        elif isinstance(event, sm.Loaded):
            config = event.config
            self._tell(event.notes)
            self._screen.note(f"{config.num_frames} frames of {config.width}x{config.height}, {config.sampler}")
            if config.upscale > 1 or config.interpolate > 1:
                self._screen.note(_written(config))
            steps = config.num_inference_steps or 0
            total = steps * config.freeinit_passes + int(steps * (config.upscale_denoise or 0))
            self._progress.show(f"denoising{_which(0, config.num_clips)}", 0, total or None)
        elif isinstance(event, sm.WindowDone):
            detail = f"window {event.window} of {event.windows}"
            self._progress.show(f"denoising{_which(event.clip, event.num_clips)}", event.step - 1, event.total, detail)
        elif isinstance(event, sm.StepDone):
            self._progress.show(f"denoising{_which(event.clip, event.num_clips)}", event.step, event.total)
        elif isinstance(event, sm.Decoding):
            self._progress.show(f"decoding{_which(event.clip, event.num_clips)}", event.frames, event.total)
        else:
            self.finished.append(event.clip)
            for output in event.clip.outputs:
                self._screen.result(str(output.path))

    def _tell(self, notes: tuple[str, ...]) -> None:
        for note in notes:
            self._screen.note(note)


def _which(clip: int, num_clips: int) -> str:
    return f" clip {clip + 1} of {num_clips}" if num_clips > 1 else ""


def _written(config: sm.AnimateConfig) -> str:
    """Return what a second pass and frames in between make of a clip."""
    from stillmotion.animate.upscaling import larger_size, written_fps, written_frames

    width, height = larger_size(config) or (0, 0)
    return f"written as {written_frames(config)} frames of {width}x{height} at {written_fps(config):g} fps"


def _kept(count: int) -> str:
    return "1 finished clip is kept." if count == 1 else f"{count} finished clips are kept." if count else ""


@contextmanager
def ctrl_c() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether Ctrl-C was pressed; a second press interrupts at once."""
    pressed = threading.Event()

    def press(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # what `signal` calls
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return
    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _hide_other_bars() -> None:
    from stillmotion.t2i.quiet import hide_loading_bars

    hide_loading_bars()


def configs_from(arguments: argparse.Namespace, screen: Screen) -> list[sm.AnimateConfig]:
    """Return the jobs of the flags, or of every job in the file of `--config`, which may be another program's."""
    if not arguments.config:
        return [config_from(sm.AnimateConfig, arguments)]
    from stillmotion.animate.foreign_jobs import read_jobs

    jobs = read_jobs(arguments.config)
    for note in dict.fromkeys(note for job in jobs for note in job.notes):
        screen.note(f"{arguments.config}: {note}")
    return [config_of(sm.AnimateConfig, job.fields, arguments, job.where) for job in jobs]


def _animate_arguments(parser: Parser) -> None:
    add_config_flags(parser, sm.AnimateConfig, groups=GROUPS, shorts=SHORTS, positional=["prompt"])


def _animate(arguments: argparse.Namespace, screen: Screen) -> int:
    configs = [
        config if config.output_dir else config.replace(output_dir=OUTPUT_DIR)
        for config in configs_from(arguments, screen)
    ]
    _hide_other_bars()
    with screen.progress() as progress, ctrl_c() as pressed:
        view, session = ClipView(screen, progress), sm.Session()
        try:
            # All are checked before the first one begins.
            jobs = [sm.animation(config, cancel=pressed, session=session, keep_frames=False) for config in configs]
            for event in itertools.chain.from_iterable(jobs):
                view.show(event)
        except (sm.Cancelled, KeyboardInterrupt) as stop:
            raise sm.Cancelled(f"{stop} {_kept(len(view.finished))}".strip()) from stop
    return 0


def _replay_arguments(parser: Parser) -> None:
    parser.add_argument(
        "source", metavar="RUN", help="A run.json, the folder that holds it, or a clip with its record inside."
    )
    parser.add_argument("-o", "--output-dir", metavar="PATH", type=Path, help="Where a folder is made. [outputs]")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="Go on with a run that was interrupted, from its folder that ends in .unfinished, as if it had never stopped.",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="Change one field of the job: another prompt with the same noise, another device.",
    )
    parser.add_argument(
        "--allow-changed-models", action="store_true", help="Go on where a model file is not the one of the record."
    )


def _replay(arguments: argparse.Namespace, screen: Screen) -> int:
    _hide_other_bars()
    if arguments.resume:
        return _resume(arguments, screen)
    with screen.progress() as progress, ctrl_c() as pressed:
        sm.replay(
            arguments.source,
            output_dir=arguments.output_dir or OUTPUT_DIR,
            overrides=arguments.set,
            allow_changed_models=arguments.allow_changed_models,
            progress=ClipView(screen, progress).show,
            cancel=pressed,
        )
    return 0


def _resume(arguments: argparse.Namespace, screen: Screen) -> int:
    from stillmotion.animate import plan_resume, run

    given = [flag for flag, value in (("--output-dir", arguments.output_dir), ("--set", arguments.set)) if value]
    if given:
        raise sm.ConfigError(f"{given[0]}: a run that goes on stays where and as it began; leave it out, or --resume")
    plan = plan_resume(arguments.source, allow_changed_models=arguments.allow_changed_models)
    with screen.progress() as progress, ctrl_c() as pressed:
        view = ClipView(screen, progress)
        for event in run(plan, cancel=pressed, keep_frames=False):
            view.show(event)
    return 0


VERBS = {
    "animate": Verb(
        description="Make a clip from a prompt. Without --model the tiny models inside the package draw the toyworld; "
        "with one, give a motion module too. A folder for the run is made under outputs.",
        add_arguments=_animate_arguments,
        run=_animate,
    ),
    "replay": Verb(
        description="Make a clip again from the record of its run. On the machine that made it every frame is the same "
        "to the bit. With --resume, go on with a run that was interrupted.",
        add_arguments=_replay_arguments,
        run=_replay,
    ),
}
