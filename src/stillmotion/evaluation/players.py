"""Clips small enough to lie inside a page: WebM, without the record of how they were made."""

import base64
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from stillmotion.data import probe, read_frames, write_clip

MOST_FRAMES = 240
_UNKNOWN_FPS = 8.0  # of a folder of frames that does not say


def embedded_player(path: Path, longest_side: int) -> str:
    """Return the clip's first `MOST_FRAMES` frames as a `data:` address of a WebM, shrunk to that side at most."""
    with tempfile.TemporaryDirectory(prefix="stillmotion-") as folder:
        file = without_record(path, Path(folder) / "clip.webm", longest_side, most_frames=MOST_FRAMES)
        return "data:video/webm;base64," + base64.b64encode(file.read_bytes()).decode("ascii")


def without_record(
    path: Path, target: Path, longest_side: int | None = None, *, most_frames: int | None = None
) -> Path:
    """Write the clip's frames alone to `target` (.webm, .mp4) and return it: no metadata, no sound, at most that side."""
    fps = probe(path).fps or _UNKNOWN_FPS
    frames = itertools.islice(read_frames(path), most_frames)
    return write_clip(_shrunk(frames, longest_side), target, min(max(fps, 1), 120)).path


def _shrunk(
    frames: Iterator[UInt8[np.ndarray, "height width 3"]], longest_side: int | None
) -> Iterator[UInt8[np.ndarray, "new_height new_width 3"]]:
    for frame in frames:
        shrink = (longest_side or max(frame.shape)) / max(frame.shape[:2])
        if shrink >= 1:
            yield frame
            continue
        size = (max(round(frame.shape[1] * shrink), 2), max(round(frame.shape[0] * shrink), 2))
        yield np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))
