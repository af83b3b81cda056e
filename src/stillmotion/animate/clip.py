"""A finished clip."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from stillmotion.animate.record import compact
from stillmotion.data import WrittenClip, write_clip
from stillmotion.errors import FileError


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """A clip and how it was made."""

    frames: UInt8[np.ndarray, "frames height width 3"]
    """The pixels, 0…255; none where the job wrote them without keeping them."""
    fps: float
    """Frames per second."""
    seed: int
    """The seed it was made from."""
    run: Mapping[str, Any]
    """The whole record of the run: what `run.json` holds."""
    folder: Path | None = None
    """The run folder; None where the clip is in memory only."""
    outputs: tuple[WrittenClip, ...] = field(default=())
    """The clip files in the run folder."""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the clip in the format of the path's ending (.mp4, .webm, .gif, .webp; none: PNG frames) and return it.

        The record of the run is embedded, so `replay` takes the file. Raises `FileError` where it cannot be written.
        """
        if not len(self.frames):
            raise FileError(f"{path}: the frames of this clip were not kept; they are in {self.folder}.")
        return write_clip(self.frames, path, self.fps, metadata=compact(self.run)).path

    def __repr__(self) -> str:
        """Return its size, rate, seed and place in a line."""
        count, height, width = self.frames.shape[:3]
        place = f", {self.folder}" if self.folder else ""
        return f"Clip({count} frames of {width}x{height} at {self.fps:g} fps, seed {self.seed}{place})"
