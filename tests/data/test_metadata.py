"""The record inside a clip: there in every format, and untrusted when read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stillmotion.data import FORMATS, ClipFormat, file_name, read_clip, read_metadata, write_clip
from stillmotion.errors import FileError

SoftFrames = Callable[[int, int, int], np.ndarray]

RECORD: dict[str, Any] = {
    "prompt": "ein Ball, ボール, “rot” \\ \n",
    "seed": str(2**80),
    "long": "x" * 3000,
    "n": [1, 2.5],
}


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("kind", FORMATS)
def test_the_record_travels_in_the_clip(tmp_path: Path, kind: ClipFormat, count: int, soft_frames: SoftFrames) -> None:
    path = tmp_path / file_name("clip", kind)
    write_clip(soft_frames(count, 32, 48), path, 8, metadata=RECORD)
    found = read_metadata(path)
    assert {key: found[key] for key in RECORD} == RECORD
    assert len(read_clip(path)) == count


def test_a_single_png_frame_carries_it_too(tmp_path: Path, soft_frames: SoftFrames) -> None:
    write_clip(soft_frames(2, 16, 16), tmp_path / "frames", 8, metadata={**RECORD, "parameters": "a ball\nSteps: 25"})
    assert read_metadata(tmp_path / "frames" / "00001.png")["seed"] == RECORD["seed"]
    with Image.open(tmp_path / "frames" / "00001.png") as picture:
        assert picture.info["parameters"] == "a ball\nSteps: 25"


@pytest.mark.parametrize(
    "comment",
    [
        "masterpiece, Steps: 20",
        "[1, 2]",
        '{"stillmotion": 3}',
        "[" * 100_000,
        '{"stillmotion": {"a": "' + "x" * (1 << 20) + '"}}',
        '{"stillmotion": {"a": ' + "9" * 5000 + "}}",
    ],
)
def test_what_others_wrote_is_no_record(tmp_path: Path, comment: str) -> None:
    text = PngInfo()
    text.add_text("stillmotion", comment, zip=len(comment) < 50_000)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=text)
    assert read_metadata(tmp_path / "a.png") == {}


def test_a_clip_without_a_record_has_none(tmp_path: Path) -> None:
    for kind in ("gif", "webp"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"a.{kind}")
        assert read_metadata(tmp_path / f"a.{kind}") == {}


def test_a_file_that_is_no_clip_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        read_metadata(tmp_path / "none.mp4")
    for name in ("a.mp4", "a.png"):
        (tmp_path / name).write_text("words")
        with pytest.raises(FileError, match=name):
            read_metadata(tmp_path / name)
