"""Contact sheets: a clip on one picture, left to right, top to bottom."""

import math
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from stillmotion.errors import ConfigError, FileError

_GAP, _PAPER = 2, 24  # pixels between pictures, and the grey level between them


class SheetWriter:
    """Takes the frames of a clip one by one and makes a PNG of at most `most` of them, evenly spaced."""

    def __init__(
        self, path: str | os.PathLike[str], num_frames: int, *, columns: int | None = None, most: int = 64
    ) -> None:
        if num_frames < 1 or most < 1 or (columns is not None and columns < 1):
            raise ConfigError(f"expected at least 1 frame and 1 column, got {num_frames}, {most} and {columns}")
        self.path = Path(path)
        count = min(num_frames, most)
        self._shown = {round(index * (num_frames - 1) / max(count - 1, 1)): index for index in range(count)}
        self._columns = min(columns or math.ceil(math.sqrt(count)), count)
        self._seen = 0
        self._paper: np.ndarray | None = None

    def add(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Take the next frame."""
        place = self._shown.get(self._seen)
        self._seen += 1
        if place is None:
            return
        height, width = frame.shape[0] + _GAP, frame.shape[1] + _GAP
        if self._paper is None:
            rows = math.ceil(len(self._shown) / self._columns)
            self._paper = np.full((rows * height + _GAP, self._columns * width + _GAP, 3), _PAPER, np.uint8)
        top, left = (place // self._columns) * height + _GAP, (place % self._columns) * width + _GAP
        self._paper[top : top + frame.shape[0], left : left + frame.shape[1]] = frame

    def finish(self) -> Path:
        """Write the sheet, put it in place and return its path."""
        if self._paper is None:
            raise FileError(f"{self.path}: there is no frame to show.")
        partial = self.path.with_name(f".{self.path.name}-{uuid.uuid4().hex[:8]}.partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(self._paper).save(partial, format="PNG")
            partial.replace(self.path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise FileError(f"{self.path}: cannot be written: {error}.") from error
        return self.path


def contact_sheet(
    frames: Sequence[UInt8[np.ndarray, "height width 3"]] | UInt8[np.ndarray, "frames height width 3"],
    path: str | os.PathLike[str],
    columns: int | None = None,
) -> Path:
    """Write all frames of a clip on one PNG, `columns` to a row (about a square by default), and return its path."""
    sheet = SheetWriter(path, len(frames), columns=columns, most=max(len(frames), 1))
    for frame in frames:
        sheet.add(frame)
    return sheet.finish()
