"""`data camera`: clips and pictures with a camera motion, for MotionLoRAs to learn from."""

import argparse

from stillmotion.cli.clips import ctrl_c
from stillmotion.cli.parsing import Parser, add_config_flags, config_from
from stillmotion.cli.screen import Screen
from stillmotion.cli.verb import Verb

GROUPS = {
    "camera": ["motion", "easing"],
    "clips": ["num_frames", "frame_stride", "width", "height", "fps"],
    "output": ["out", "overwrite"],
}
SHORTS = {"num_frames": "-L", "width": "-W", "height": "-H", "out": "-o"}


def _arguments(parser: Parser) -> None:
    from stillmotion.data import CameraConfig

    add_config_flags(parser, CameraConfig, groups=GROUPS, shorts=SHORTS, positional=["source"])


def _camera(arguments: argparse.Namespace, screen: Screen) -> int:
    from stillmotion.data import CameraConfig

    config = config_from(CameraConfig, arguments)
    from stillmotion.data import (
        Filmed,
        Filming,
        Kept,
        film,
    )  # PyTorch comes with it, which a wrong flag need not wait for

    screen.note(f"{config.camera()}, {config.easing}, {config.num_frames} frames")
    skipped = 0
    with screen.progress() as progress, ctrl_c() as pressed:
        for event in film(config, cancel=pressed):
            if isinstance(event, Filming):
                progress.show("filming", event.done, event.total, event.source.name)
            elif isinstance(event, Filmed):
                if event.clip.note:
                    screen.note(f"{event.clip.path}: {event.clip.note}")
                screen.result(str(event.clip.path))
            elif isinstance(event, Kept):
                screen.note(f"{event.path} is there already and is kept.")
            else:
                skipped += 1
                screen.error(event.reason)
    if skipped:
        screen.error(f"{skipped} of the sources {'was' if skipped == 1 else 'were'} skipped; the reasons stand above.")
    return 2 if skipped else 0


VERBS = {
    "data camera": Verb(
        description="Give clips and pictures a camera motion, as a MotionLoRA learns it: a crop that moves, turns or "
        "changes its size over time, never leaving the picture.\n\n"
        "A motion is named after what the camera does: zoom-in, zoom-out (1.5 is half as large again), pan-left, "
        "pan-right, tilt-up, tilt-down (0.3 is three tenths of the frame), roll-clockwise, roll-anticlockwise (in "
        "degrees). When the camera pans left, the picture moves right. Several are joined by +: "
        "zoom-in:1.3+pan-left:0.2.\n\n"
        "A caption of the same name (.txt) is copied beside each clip.",
        add_arguments=_arguments,
        run=_camera,
    ),
}
