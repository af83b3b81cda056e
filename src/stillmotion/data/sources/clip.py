"""What a source of clips is to those who read from it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from stillmotion.errors import FileError

_BLOCK = 16  # frames that are held at once of a source that cannot stream


@dataclass(frozen=True)
class ClipItem:
    """What is known of a clip without opening it."""

    key: str
    """Its name, unique and stable within its source: a relative path, a videoid, a member of a tar."""
    caption: str
    """What it shows; empty where nobody said."""


@runtime_checkable
class ClipSource(Protocol):
    """Clips by number, in an order that never changes. Everything that opens a clip may raise `FileError`."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    def __len__(self) -> int: ...

    def item(self, index: int) -> ClipItem:
        """Return the clip's key and caption, without opening it."""
        ...

    def num_frames(self, index: int) -> int:
        """Return how many frames the clip has."""
        ...

    def fps(self, index: int) -> float:
        """Return how many frames per second it plays at."""
        ...

    def frames(self, index: int, positions: Sequence[int]) -> UInt8[np.ndarray, "frames height width 3"]:
        """Return exactly those frames at the source's size, turned upright; any order, repeats allowed."""
        ...

    def fingerprint(self) -> str:
        """Return a sha256 over the kind, the keys, the captions and the sizes of the files."""
        ...


@runtime_checkable
class StreamingSource(ClipSource, Protocol):
    """A source that gives many frames of a clip in one pass."""

    def stream(self, index: int, positions: Sequence[int]) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield the frames at `positions`, which ascend."""
        ...


def stream(source: ClipSource, index: int, positions: Sequence[int]) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yield the frames at `positions`, which ascend, in memory that does not grow with the clip."""
    if isinstance(source, StreamingSource):
        yield from source.stream(index, positions)
        return
    for start in range(0, len(positions), _BLOCK):
        yield from source.frames(index, positions[start : start + _BLOCK])


def without_caption(source: ClipSource) -> int:
    """Return how many clips nobody said anything about."""
    return sum(not source.item(index).caption for index in range(len(source)))


def checked(positions: Sequence[int], num_frames: int, where: object) -> list[int]:
    """Return the positions as a list; raise `FileError` for one that the clip does not have."""
    wrong = [position for position in positions if not 0 <= position < num_frames]
    if wrong:
        raise FileError(f"{where}: frame {wrong[0]} was asked for, but the clip has {num_frames} frames.")
    return list(positions)
