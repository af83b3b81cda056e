"""Where the bytes of a clip lie: in a file, in a folder of frames, or in the middle of a tar."""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from stillmotion.errors import FileError


@dataclass(frozen=True)
class Place:
    """A file or folder, or `length` bytes at `offset` of the tar at `path`."""

    path: Path
    member: str = ""
    """The name inside the tar; empty for a file of its own."""
    offset: int = 0
    length: int = 0

    def __str__(self) -> str:
        return f"{self.path}: {self.member}" if self.member else str(self.path)

    @property
    def suffix(self) -> str:
        """Return the ending of the name, in lower case, with its dot."""
        return Path(self.member or self.path).suffix.lower()

    def num_bytes(self) -> int:
        """Return the bytes of it, of all its files for a folder; -1 where there is nothing."""
        if self.member:
            return self.length
        try:
            if self.path.is_dir():
                return sum(entry.stat().st_size for entry in os.scandir(self.path) if entry.is_file())
            return self.path.stat().st_size
        except OSError:
            return -1

    def stamp(self) -> tuple[int, int]:
        """Return size and time of change; raise `FileError` if there is nothing, or an empty file."""
        try:
            status = self.path.stat()
        except OSError as error:
            missing = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
            raise FileError(f"{self}: {missing}.") from error
        size = self.length if self.member else status.st_size
        if size == 0 and not self.path.is_dir():
            raise FileError(f"{self}: expected a clip, but the file is empty (0 bytes).")
        return size, status.st_mtime_ns

    @contextlib.contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Give its bytes as a stream that can seek."""
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise FileError(f"{self}: cannot be read: {error.strerror}.") from error
        with file:
            # A buffer, since every read of the window seeks.
            yield io.BufferedReader(Window(file, self.offset, self.length), 1 << 16) if self.member else file

    @contextlib.contextmanager
    def as_file(self) -> Iterator[Path]:
        """Give a path that holds it; a member of a tar is copied out for so long."""
        if not self.member:
            yield self.path
            return
        with tempfile.NamedTemporaryFile(prefix="stillmotion-", suffix=self.suffix) as copy, self.opened() as stream:
            shutil.copyfileobj(stream, copy)
            copy.flush()
            try:
                yield Path(copy.name)
            except FileError as error:
                raise FileError(str(error).replace(copy.name, str(self))) from error


class Window(io.RawIOBase):
    """Some bytes of a file as a file of its own."""

    def __init__(self, file: BinaryIO, offset: int, length: int) -> None:
        super().__init__()
        self._file, self._offset, self._length, self._at = file, offset, length, 0

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that it can seek."""
        return True

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte of the window and return its number."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        self._at = min(max(start + offset, 0), self._length)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read as much as fits and is there; return how many bytes."""
        self._file.seek(self._offset + self._at)
        content = self._file.read(min(len(buffer), self._length - self._at))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)
