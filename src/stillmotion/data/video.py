"""Clips to disk: `ClipWriter` takes frames one by one, and the file appears only when it is whole."""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, final

import av
import numpy as np
from jaxtyping import UInt8

from stillmotion.data.encoders import ContainerEncoder, Encoder, FolderEncoder, GifEncoder
from stillmotion.data.formats import FORMATS, ClipFormat
from stillmotion.errors import ConfigError, FileError, MismatchError

Rate = int | float
"""Frames per second."""


@dataclass(frozen=True, kw_only=True)
class WrittenClip:
    """What was written, as it really is."""

    path: Path
    """The file, or the folder of PNG frames."""
    format: ClipFormat
    """Its format."""
    num_frames: int
    """How many frames it holds."""
    fps: float
    """Frames per second that it plays at; a GIF's may differ from what was asked."""
    width: int
    """Pixels across."""
    height: int
    """Pixels down."""
    sha256: str
    """Of the file; of all files one after the other for a folder."""
    note: str
    """What the user should know of the file; empty if nothing."""


@final
class ClipWriter:
    """Writes one clip, frame by frame, in memory that does not grow with its length.

    Frames are uint8 of shape (height, width, 3), all of one size, which is never changed. The clip is written under a
    hidden name beside `path` and renamed into place by `finish`; `abandon` leaves nothing. As a context it finishes at
    the end, and abandons if an error passes through.

    Raises `ConfigError` for a format or rate that cannot be, `FileError` where nothing can be written, `MismatchError`
    for a frame of another size.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fps: Rate,
        *,
        kind: ClipFormat | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.format: ClipFormat = kind or format_of(path)
        if not 0.01 <= fps <= 1000:
            raise ConfigError(f"fps: expected a rate from 0.01 to 1000 frames per second, got {fps!r}")
        if self.path.is_dir() and (self.format != "png" or any(self.path.iterdir())):
            raise FileError(f"{path}: a folder of that name exists already; choose another name.")
        self.fps, self.num_frames = float(fps), 0
        self._metadata = dict(metadata or {})
        self._partial = self.path.with_name(f".{self.path.name}-{uuid.uuid4().hex[:8]}.partial")
        self._encoder: Encoder | None = None
        self._shape: tuple[int, ...] = ()
        self._ended = False

    def add(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Take the next frame."""
        if self._ended:
            raise FileError(f"{self.path}: the clip is finished; start a new writer for more frames.")
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
            raise MismatchError(f"expected a uint8 frame of (height, width, 3), got {frame.dtype} of {frame.shape}.")
        if self._shape and frame.shape != self._shape:
            raise MismatchError(f"frame {self.num_frames} has shape {frame.shape}, the ones before {self._shape}.")
        try:
            if self._encoder is None:
                self._encoder, self._shape = self._open(frame.shape[:2]), frame.shape
            self._encoder.add(frame)
        except (OSError, av.FFmpegError) as error:
            self.abandon()
            raise FileError(f"{self.path}: cannot be written: {error}.") from error
        self.num_frames += 1

    def finish(self) -> WrittenClip:
        """Close the clip, put it in place and say what it is; a clip without a frame is refused."""
        if self._encoder is None or self._ended:
            self.abandon()
            raise FileError(f"{self.path}: there is no frame to write.")
        try:
            self._encoder.close()
            if self.format == "png" and self.path.is_dir():
                self.path.rmdir()
            self._partial.replace(self.path)
        except (OSError, av.FFmpegError) as error:
            self.abandon()
            raise FileError(f"{self.path}: cannot be written: {error}.") from error
        self._ended = True
        return WrittenClip(
            path=self.path,
            format=self.format,
            num_frames=self.num_frames,
            fps=self._encoder.fps,
            width=self._shape[1],
            height=self._shape[0],
            sha256=_sha256(self.path),
            note=self._encoder.note,
        )

    def abandon(self) -> None:
        """Leave nothing of an unfinished clip; a finished one stays."""
        if self._ended:
            return
        self._ended = True
        if self._encoder is not None:
            with contextlib.suppress(OSError, av.FFmpegError):  # what cannot be closed is deleted all the same
                self._encoder.discard()
        if self._partial.is_dir():
            shutil.rmtree(self._partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> "ClipWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abandon()
        elif not self._ended:
            self.finish()

    def _open(self, size: tuple[int, int]) -> Encoder:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.format == "png":
            return FolderEncoder(self._partial, self.fps, self._metadata)
        if self.format == "gif":
            return GifEncoder(self._partial, size, self.fps, self._metadata)
        return ContainerEncoder(self._partial, self.format, size, self.fps, self._metadata)


def write_clip(
    frames: Iterable[UInt8[np.ndarray, "height width 3"]],
    path: str | os.PathLike[str],
    fps: Rate,
    *,
    kind: ClipFormat | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> WrittenClip:
    """Write frames as a clip in the format of the path's ending and return what was written; see `ClipWriter`."""
    writer = ClipWriter(path, fps, kind=kind, metadata=metadata)
    try:
        for frame in frames:
            writer.add(frame)
        return writer.finish()
    except BaseException:
        writer.abandon()
        raise


def format_of(path: str | os.PathLike[str]) -> ClipFormat:
    """Return the format that a path's ending means; no ending means a folder of PNG frames."""
    suffix = Path(path).suffix.lower().removeprefix(".")
    for known in FORMATS:
        if suffix == known and known != "png":
            return known
    if not suffix:
        return "png"
    folder = " (for PNG frames name a folder, without an ending)" if suffix == "png" else ""
    raise ConfigError(f"{path}: expected a clip to end in .mp4, .webm, .gif or .webp, got .{suffix}{folder}")


def file_name(stem: str, kind: ClipFormat) -> str:
    """Return the name of a clip called `stem` in that format: `clip.mp4`, or the folder `clip-frames`."""
    return f"{stem}-frames" if kind == "png" else f"{stem}.{kind}"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
