"""Clips from disk: damaged files are named, phone videos stand upright, folders are sorted by number."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stillmotion.data import ClipFormat, probe, read_clip, read_frames, write_clip
from stillmotion.errors import FileError


def noisy_frames(count: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, 64, 96, 3), np.uint8)


@pytest.mark.parametrize("kind", ["mp4", "webm", "gif", "webp"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_clip_is_refused(tmp_path: Path, kind: ClipFormat, share: float) -> None:
    path = tmp_path / f"clip.{kind}"
    write_clip(noisy_frames(), path, 8)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(FileError, match=r"clip\.\w+: .*(truncated|damaged)"):
        read_clip(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"<!DOCTYPE html><html></html>", "is an HTML page"),
        (b"not a video at all, only words " * 9, "is no video"),
        (b"\0\0\0\x18ftypisom" + b"\0" * 64, "damaged or truncated"),
        (b"GIF89a" + b"\0" * 40, "cannot be read|truncated"),
    ],
)
def test_what_is_no_clip_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    for read in (read_clip, probe):
        with pytest.raises(FileError, match=message):
            read(path)


def test_a_clip_cut_within_its_first_frame_is_no_surprise_to_probe(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(noisy_frames(1), path, 8)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match=r"clip\.mp4: the clip is damaged or truncated"):
        probe(path)


def test_missing_files_and_empty_folders_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no such file"):
        read_frames(tmp_path / "none.mp4")
    with pytest.raises(FileError, match="holds none"):
        read_clip(tmp_path)


def test_a_playlist_does_not_reach_out(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/secret.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(FileError):
        read_clip(path)


def test_folders_are_read_by_number(tmp_path: Path) -> None:
    for number in (0, 2, 10):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"frame{number}.png")
    assert read_clip(tmp_path)[:, 0, 0, 0].tolist() == [0, 2, 10]
    assert probe(tmp_path).fps is None
    Image.new("RGB", (9, 8)).save(tmp_path / "frame11.png")
    with pytest.raises(FileError, match=r"frame11\.png: is 9x8, the frames before 8x8"):
        read_clip(tmp_path)


def test_a_turned_phone_video_stands_upright(tmp_path: Path) -> None:
    frames = np.zeros((4, 32, 64, 3), np.uint8)
    frames[:, :, :32] = 255  # the left half is white
    path = tmp_path / "clip.mp4"
    write_clip(frames, path, 8)
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 4 + 36
    # The display matrix of a phone held upright: a quarter turn clockwise.
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30)
    path.write_bytes(content)
    upright = read_clip(path)
    assert upright.shape == (4, 64, 32, 3)
    assert upright[:, :28].mean() > 240 and upright[:, 36:].mean() < 15
    assert (probe(path).height, probe(path).width) == (64, 32)
