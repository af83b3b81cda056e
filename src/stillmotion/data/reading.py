"""Clips from disk: what a file is, and its frames, with a clear word where it is damaged or no clip at all."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageSequence

from stillmotion.data.folders import frame_files
from stillmotion.data.metadata import read_metadata
from stillmotion.errors import FileError

SAFE = {"protocol_whitelist": "file"}
"""FFmpeg's options for files of others: a playlist must not reach out of the machine."""


_LONGEST_HOLD = 1000  # frames that one stored picture may stand for


@dataclass(frozen=True, kw_only=True)
class ClipInfo:
    """What a clip file is."""

    path: Path
    """The file, or the folder of frames."""
    format: str
    """Its container: mp4, webm, gif, webp, png (a folder of pictures), or FFmpeg's name of it."""
    num_frames: int
    """How many frames it holds, counted, not taken from its header."""
    fps: float | None
    """Frames per second on average; None for a folder that does not say."""
    width: int
    """Pixels across, as shown."""
    height: int
    """Pixels down, as shown."""


def probe(path: str | os.PathLike[str]) -> ClipInfo:
    """Return what a clip is, without decoding all of it; raise `FileError` if it is missing, empty or no clip."""
    file = _existing(path)
    if file.is_dir():
        files = frame_files(file)
        fps = read_metadata(file).get("fps")
        known = float(fps) if isinstance(fps, int | float) and fps > 0 else None
        with _picture(files[0]) as first:
            return _info(file, "png", len(files), known, first.size)
    if is_picture_clip(_head(file)):
        with _picture(file) as clip:
            counts, seconds = _repeats(clip)
            rate = sum(counts) / seconds if seconds else None
            return _info(file, str(clip.format).lower(), sum(counts), rate, clip.size)
    with _container(file) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate) if stream.average_rate else None
        try:
            first_frame = next(container.decode(stream), None)
            container.seek(0)
            count = sum(1 for packet in container.demux(stream) if packet.size)
        except av.FFmpegError as error:
            raise FileError(f"{file}: the clip is damaged or truncated; get the file again.") from error
        turned = first_frame is not None and first_frame.rotation % 180 != 0
        size = (stream.height, stream.width) if turned else (stream.width, stream.height)
        return _info(file, _format_name(container.format.name, file), count, rate, size)


def read_frames(path: str | os.PathLike[str]) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Return an iterator of a clip's frames, turned upright.

    Raises `FileError` at once where there is no such file or it is empty, and while reading where it is no clip or
    ends too early.
    """
    file = _existing(path)
    if file.is_dir():
        return _folder_frames(file)
    return _picture_frames(file) if is_picture_clip(_head(file)) else _container_frames(file)


def read_clip(path: str | os.PathLike[str]) -> UInt8[np.ndarray, "frames height width 3"]:
    """Return all frames of a clip; raise `FileError` if it is no clip or ends too early."""
    frames = list(read_frames(path))
    if not frames:
        raise FileError(f"{path}: expected a clip, but it holds no frame.")
    return np.stack(frames)


def _info(file: Path, kind: str, count: int, fps: float | None, size: tuple[int, int]) -> ClipInfo:
    return ClipInfo(path=file, format=kind, num_frames=count, fps=fps, width=size[0], height=size[1])


def _existing(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if not file.exists():
        raise FileError(f"{path}: there is no such file.")
    if file.is_file() and file.stat().st_size == 0:
        raise FileError(f"{path}: expected a clip, but the file is empty (0 bytes).")
    return file


def _head(file: Path, length: int = 16) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(length)
    except OSError as error:
        raise FileError(f"{file}: cannot be read: {error.strerror}.") from error


def is_picture_clip(head: bytes) -> bool:
    """Return whether Pillow reads the file that begins so; FFmpeg does not decode animated WebP."""
    return head.startswith((b"GIF87a", b"GIF89a")) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _picture(file: Path) -> Image.Image:
    try:
        return Image.open(file)
    except (OSError, ValueError, SyntaxError) as error:
        raise FileError(f"{file}: expected a picture or clip, but it cannot be read as one.") from error


def _container(file: Path) -> "av.container.InputContainer":
    try:
        container = av.open(str(file), options=SAFE)
    except (av.FFmpegError, OSError) as error:
        raise FileError(f"{file}: expected a clip, but it {looks_like(_head(file, 512))}.") from error
    if not container.streams.video:
        container.close()
        raise FileError(f"{file}: expected a clip, but it holds no pictures (only sound or data).")
    return container


def looks_like(head: bytes) -> str:
    """Return what a file is that begins so and that FFmpeg refuses, as the end of a sentence."""
    head = head.lstrip()
    if head[:1] == b"<" and b"html" in head.lower():
        return "is an HTML page: the download went wrong"
    if head[4:8] == b"ftyp" or head.startswith(b"\x1aE\xdf\xa3"):
        return "is a damaged or truncated video"
    return "is no video that FFmpeg can read"


def _format_name(name: str, file: Path) -> str:
    suffix = file.suffix.lower().removeprefix(".")
    return suffix if suffix in name.split(",") else name.partition(",")[0]


def _folder_frames(folder: Path) -> Iterator[np.ndarray]:
    size: tuple[int, int] | None = None
    for file in frame_files(folder):
        with _picture(file) as picture:
            size = size or picture.size
            if picture.size != size:
                raise FileError(
                    f"{file}: is {picture.size[0]}x{picture.size[1]}, the frames before {size[0]}x{size[1]}."
                )
            yield _pixels(picture, file)


def _picture_frames(file: Path) -> Iterator[np.ndarray]:
    if not _is_whole(file):
        raise FileError(f"{file}: the clip is truncated; get the file again.")
    with _picture(file) as clip:
        counts, _ = _repeats(clip)
        for frame, count in zip(ImageSequence.Iterator(clip), counts, strict=True):
            pixels = _pixels(frame, file)
            for _ in range(count):
                yield pixels


def _repeats(clip: Image.Image) -> tuple[list[int], float]:
    """Return how many frames each picture of an animation stands for, and the seconds of all.

    WebP encoders store equal neighbours once, for their joint time; a GIF's delays alternate, and each is one frame.
    """
    durations = []
    for frame in ImageSequence.Iterator(clip):
        if clip.format == "WEBP":
            frame.load()  # Pillow knows its duration only then
        durations.append(max(int(frame.info.get("duration") or 0), 0))
    shortest = max(min(durations), 1)
    counts = [min(max(round(time / shortest), 1), _LONGEST_HOLD) if clip.format == "WEBP" else 1 for time in durations]
    return counts, sum(durations) / 1000


def _is_whole(file: Path) -> bool:
    """Return whether a GIF has its trailer, a WebP its length: decoders end early without a word."""
    with file.open("rb") as stream:
        head = stream.read(8)
        length = stream.seek(-1, os.SEEK_END) + 1
        return stream.read(1) == b";" if head.startswith(b"GIF") else length >= 8 + int.from_bytes(head[4:], "little")


def _pixels(picture: Image.Image, file: Path) -> np.ndarray:
    try:
        return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise FileError(f"{file}: the picture is damaged: {error}.") from error


def _container_frames(file: Path) -> Iterator[np.ndarray]:
    count, end = 0, 0.0
    with _container(file) as container:
        stream = container.streams.video[0]
        cut_off = index_end(stream) > file.stat().st_size
        try:
            for frame in container.decode(stream):
                count += 1
                end = (frame.time or 0.0) + 1.5 / float(stream.average_rate or 1)
                yield np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
        except av.FFmpegError as error:
            raise FileError(f"{file}: the clip is damaged after {count} frames; get the file again.") from error
        cut_off = cut_off or end < promised_seconds(stream)
    if cut_off:
        raise FileError(f"{file}: the clip is truncated after {count} frames; get the file again.")


def index_end(stream: av.VideoStream) -> int:
    """Return the byte behind the last packet that the file's index (MP4) promises; 0 where there is no index."""
    return max((entry.pos + entry.size for entry in stream.index_entries), default=0)


def promised_seconds(stream: av.VideoStream) -> float:
    """Return how long the stream says it is (Matroska and WebM: "00:00:02.000000000"); 0 where it does not."""
    parts = stream.metadata.get("DURATION", "").split(":")
    try:
        return sum(float(part) * 60**power for power, part in enumerate(reversed(parts)))
    except ValueError:
        return 0.0
