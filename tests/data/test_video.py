"""Clips on disk: round trips in every format, honest rates and sizes, nothing half-written."""

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stillmotion.data import FORMATS, ClipFormat, ClipWriter, file_name, format_of, probe, read_clip, write_clip
from stillmotion.errors import ConfigError, FileError, MismatchError

SoftFrames = Callable[[int, int, int], np.ndarray]

# The largest mean error of a channel that each format may make on a soft picture of 255 levels.
COLOUR_BOUND = {"mp4": 3.0, "webm": 3.0, "gif": 9.0, "webp": 3.0, "png": 0.0}


@pytest.mark.parametrize("size", [(64, 96), (63, 97)])
@pytest.mark.parametrize("kind", FORMATS)
def test_round_trip(tmp_path: Path, kind: ClipFormat, size: tuple[int, int], soft_frames: SoftFrames) -> None:
    frames = soft_frames(16, *size)
    path = tmp_path / file_name("clip", kind)
    written = write_clip(frames, path, 8, metadata={"seed": "7"})
    assert (written.num_frames, written.fps, written.height, written.width) == (16, 8.0, *size)
    found = probe(path)
    assert (found.format, found.num_frames, found.height, found.width) == (kind, 16, *size)
    assert found.fps == pytest.approx(8.0)
    read = read_clip(path)
    assert read.shape == frames.shape and read.dtype == np.uint8
    error = np.abs(read.astype(int) - frames).mean(axis=(0, 1, 2))
    assert (error <= COLOUR_BOUND[kind]).all(), error
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["mp4", "webm", "webp", "gif"])
def test_colours_keep_their_brightness(tmp_path: Path, kind: ClipFormat) -> None:
    """A wrong matrix or range between RGB and YUV would shift whole planes."""
    for colour in [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)]:
        frames = np.full((4, 64, 64, 3), colour, np.uint8)
        write_clip(frames, tmp_path / f"flat.{kind}", 8)
        assert np.abs(read_clip(tmp_path / f"flat.{kind}").astype(int) - colour).max() <= 3


@pytest.mark.parametrize(("asked", "played"), [(8, 8.0), (12.5, 12.5), (24, 24.0), (30, 30.0), (60, 50.0)])
def test_a_gif_says_the_rate_that_it_plays_at(
    tmp_path: Path, asked: float, played: float, soft_frames: SoftFrames
) -> None:
    written = write_clip(soft_frames(24, 16, 16), tmp_path / "clip.gif", asked)
    assert written.fps == pytest.approx(played, rel=0.02)
    assert written.fps == pytest.approx(probe(written.path).fps)
    assert bool(written.note) == (asked > 50)
    with Image.open(written.path) as clip:
        assert clip.info["loop"] == 0
        clip.seek(23)
        assert clip.info["duration"] >= 20


@pytest.mark.parametrize("kind", ["gif", "webp", "mp4", "webm"])
def test_equal_and_single_frames_are_kept(tmp_path: Path, kind: ClipFormat, soft_frames: SoftFrames) -> None:
    moving = soft_frames(2, 32, 32)
    paused = np.concatenate([np.repeat(moving[:1], 4, axis=0), moving[1:]])
    assert write_clip(paused, tmp_path / f"paused.{kind}", 8).num_frames == 5
    assert len(read_clip(tmp_path / f"paused.{kind}")) == probe(tmp_path / f"paused.{kind}").num_frames == 5
    assert probe(tmp_path / f"paused.{kind}").fps == pytest.approx(8, rel=0.01)
    write_clip(moving[:1], tmp_path / f"one.{kind}", 8, metadata={"a": 1})
    assert len(read_clip(tmp_path / f"one.{kind}")) == 1


def test_an_odd_mp4_says_what_it_costs(tmp_path: Path, soft_frames: SoftFrames) -> None:
    assert "odd size 31x33" in write_clip(soft_frames(2, 33, 31), tmp_path / "odd.mp4", 8).note
    assert write_clip(soft_frames(2, 32, 32), tmp_path / "even.mp4", 8).note == ""


@pytest.mark.parametrize("kind", FORMATS)
def test_an_interrupted_clip_leaves_nothing(tmp_path: Path, kind: ClipFormat, soft_frames: SoftFrames) -> None:
    def breaking() -> Iterator[np.ndarray]:
        yield from soft_frames(3, 32, 32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_clip(breaking(), tmp_path / file_name("clip", kind), 8)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_clip_leaves_the_old_one(tmp_path: Path, soft_frames: SoftFrames) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(soft_frames(4, 32, 32), path, 8)
    before = path.read_bytes()
    with pytest.raises(MismatchError, match="frame 1 has shape"):
        write_clip([np.zeros((32, 32, 3), np.uint8), np.zeros((16, 32, 3), np.uint8)], path, 8)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_wrong_uses_are_named(tmp_path: Path, soft_frames: SoftFrames) -> None:
    with pytest.raises(ConfigError, match=r"expected a clip to end in .*got \.avi"):
        format_of("clip.avi")
    with pytest.raises(ConfigError, match="name a folder"):
        format_of("clip.png")
    with pytest.raises(ConfigError, match="fps: expected a rate"):
        ClipWriter(tmp_path / "clip.mp4", 0)
    with pytest.raises(FileError, match="no frame to write"):
        write_clip([], tmp_path / "clip.mp4", 8)
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match="cannot be written"):
        write_clip(soft_frames(1, 16, 16), tmp_path / "file" / "clip.mp4", 8)
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(FileError, match="a folder of that name exists"):
        ClipWriter(tmp_path / "folder.mp4", 8)
    write_clip(soft_frames(1, 16, 16), tmp_path / "frames", 8)
    with pytest.raises(FileError, match="exists already"):
        ClipWriter(tmp_path / "frames", 8)


def test_a_finished_writer_takes_no_more(tmp_path: Path, soft_frames: SoftFrames) -> None:
    with ClipWriter(tmp_path / "clip.webm", 8) as writer:
        writer.add(soft_frames(1, 16, 16)[0])
    with pytest.raises(FileError, match="finished"):
        writer.add(soft_frames(1, 16, 16)[0])
    writer.abandon()
    assert (tmp_path / "clip.webm").exists()


def test_memory_does_not_grow_with_the_clip(tmp_path: Path, soft_frames: SoftFrames) -> None:
    """A GIF's palette needs all frames; they wait on disk, so what Python holds stays small."""
    frame = soft_frames(1, 64, 64)[0]
    peaks = []
    for count in (128, 256):
        tracemalloc.start()
        write_clip((np.roll(frame, index, 1) for index in range(count)), tmp_path / f"{count}.gif", 8)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] <= 1.2 * peaks[0], peaks
