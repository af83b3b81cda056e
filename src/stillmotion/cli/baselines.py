"""`baseline`: clips by the methods that the paper compares itself with."""

import argparse
from collections.abc import Mapping
from typing import Any

import stillmotion as sm
from stillmotion.cli.clips import OUTPUT_DIR, SHORTS, ClipView, ctrl_c
from stillmotion.cli.parsing import Parser, add_config_flags, config_of
from stillmotion.cli.screen import ProgressView, Screen
from stillmotion.cli.verb import Verb
from stillmotion.config import read_yaml

_SHARED_GROUPS = {
    "what is seen": ["negative_prompt", "num_frames", "width", "height", "fps", "seed", "num_clips"],
    "models": ["model", "vae"],
    "what the model is taught": [
        "loras",
        "embeddings",
        "custom_diffusion",
        "allow_partial",
        "trigger_words",
        "clip_skip",
    ],
    "sampling": ["num_inference_steps", "guidance_scale", "sampler"],
    "output": ["output_dir", "formats"],
    "machine": ["device", "dtype", "decode_chunk"],
}
_ZERO_GROUPS = {"how it moves": ["motion_field_x", "motion_field_y", "t0", "t1", "frames_together"], **_SHARED_GROUPS}
_TUNE_GROUPS = {
    "how it moves": ["video", "video_prompt", "frame_stride", "start", "spatial_norm"],
    "tuning": ["tuning_dir", "num_tuning_steps", "learning_rate", "tuning_seed", "gradient_checkpointing"],
    **_SHARED_GROUPS,
}


class BaselineView(ClipView):
    """Shows a baseline's events: those of `animate`, the tuning and the inversion."""

    def __init__(self, screen: Screen, progress: ProgressView) -> None:
        super().__init__(screen, progress)
        self._bar = progress

    def show(self, event: Any) -> None:
        """Show one event."""
        from stillmotion.baselines import Inverted, Tuned

        if isinstance(event, sm.Loaded):  # what comes next is said when it comes
            self._tell(event.notes)
            self._screen.note(f"{event.config.num_frames} frames of {event.config.width}x{event.config.height}")
        elif isinstance(event, Tuned):
            self._bar.show("tuning", event.step, event.num_steps, f"loss {event.loss:.4f}")
        elif isinstance(event, Inverted):
            self._bar.show("inverting", event.step, event.total)
        else:
            super().show(event)


def _zero_arguments(parser: Parser) -> None:
    add_config_flags(parser, sm.Text2VideoZeroConfig, groups=_ZERO_GROUPS, shorts=SHORTS, positional=["prompt"])


def _tune_arguments(parser: Parser) -> None:
    add_config_flags(parser, sm.TuneAVideoConfig, groups=_TUNE_GROUPS, shorts=SHORTS, positional=["prompt"])


def _fields(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return the fields of the file of `--config`, which may be the record of a run."""
    found = read_yaml(arguments.config) if arguments.config else {}
    inside = found.get("config")
    return inside if "schema" in found and isinstance(inside, dict) else found


def _make(
    kind: type[sm.Text2VideoZeroConfig] | type[sm.TuneAVideoConfig], arguments: argparse.Namespace, screen: Screen
) -> int:
    config = config_of(kind, _fields(arguments), arguments)
    config = config if config.output_dir else config.replace(output_dir=OUTPUT_DIR)
    from stillmotion.baselines import making
    from stillmotion.t2i.quiet import hide_loading_bars

    hide_loading_bars()
    with screen.progress() as progress, ctrl_c() as pressed:
        view = BaselineView(screen, progress)
        for event in making(config, cancel=pressed, keep_frames=False):
            view.show(event)
    return 0


VERBS = {
    "baseline text2video-zero": Verb(
        description="Make a clip by Text2Video-Zero: no training and no motion module. The first frame's latents are shifted "
        "along, and every frame is drawn with an eye on the first.",
        add_arguments=_zero_arguments,
        run=lambda arguments, screen: _make(sm.Text2VideoZeroConfig, arguments, screen),
    ),
    "baseline tune-a-video": Verb(
        description="Make a clip by Tune-A-Video: the image model is tuned on one clip, whose motion the new clip takes over.",
        add_arguments=_tune_arguments,
        run=lambda arguments, screen: _make(sm.TuneAVideoConfig, arguments, screen),
    ),
}
