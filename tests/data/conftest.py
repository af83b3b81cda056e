"""Frames to write."""

from collections.abc import Callable

import numpy as np
import pytest

SoftFrames = Callable[[int, int, int], np.ndarray]


@pytest.fixture
def soft_frames() -> SoftFrames:
    """Frames (count, height, width): a colour ramp that brightens, with a square that walks."""
    return _soft_frames


def _soft_frames(count: int, height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    frames = []
    for index in range(count):
        frame = np.stack([columns * 200 / width, rows * 200 / height, np.full(rows.shape, 60 + 4 * index)], -1)
        left = (index * width) // (2 * count)
        frame[height // 4 : height // 2, left : left + width // 4] = (230, 40, 40)
        frames.append(frame.astype(np.uint8))
    return np.stack(frames)
