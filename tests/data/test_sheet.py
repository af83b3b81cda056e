"""Contact sheets: every frame in its place, long clips thinned evenly."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stillmotion.data import SheetWriter, contact_sheet
from stillmotion.errors import ConfigError, FileError


def numbered(count: int) -> np.ndarray:
    return np.stack([np.full((8, 12, 3), index, np.uint8) for index in range(count)])


def cells(path: Path, columns: int, rows: int) -> list[int]:
    with Image.open(path) as picture:
        sheet = np.asarray(picture)
    assert sheet.shape == (rows * 10 + 2, columns * 14 + 2, 3)
    return [int(sheet[row * 10 + 5, column * 14 + 5, 0]) for row in range(rows) for column in range(columns)]


def test_frames_stand_in_reading_order(tmp_path: Path) -> None:
    contact_sheet(numbered(16), tmp_path / "sheet.png")
    assert cells(tmp_path / "sheet.png", 4, 4) == list(range(16))
    contact_sheet(list(numbered(5)), tmp_path / "wide.png", columns=3)
    assert cells(tmp_path / "wide.png", 3, 2)[:5] == list(range(5))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["sheet.png", "wide.png"]


def test_a_long_clip_is_thinned_evenly_with_both_ends(tmp_path: Path) -> None:
    sheet = SheetWriter(tmp_path / "sheet.png", 101, most=5, columns=5)
    for frame in numbered(101):
        sheet.add(frame)
    assert cells(sheet.finish(), 5, 1) == [0, 25, 50, 75, 100]


def test_nothing_to_show_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        contact_sheet([], tmp_path / "sheet.png")
    with pytest.raises(FileError, match="no frame"):
        SheetWriter(tmp_path / "sheet.png", 3).finish()
