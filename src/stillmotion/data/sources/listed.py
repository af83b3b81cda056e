"""A list of clips on disk as a source: what every kind of data set becomes once it is listed."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import UInt8

from stillmotion.data.sources.clip import ClipItem, checked
from stillmotion.data.sources.picking import look, pick
from stillmotion.data.sources.place import Place
from stillmotion.errors import FileError


@dataclass(frozen=True)
class ListedClip:
    """A clip of a list."""

    item: ClipItem
    place: Place


@final
class ListedSource:
    """Clips on disk, in the order of a list. A key that comes again gets a number: "a.mp4", "a.mp4#2"."""

    def __init__(self, name: str, kind: str, clips: Iterable[ListedClip]) -> None:
        self._name, self._kind = name, kind
        self._clips = _with_own_keys(clips)
        if not self._clips:
            raise FileError(f"{name}: expected clips, but there is none.")

    @property
    def name(self) -> str:
        """Return what the user called it."""
        return self._name

    def __len__(self) -> int:
        return len(self._clips)

    def item(self, index: int) -> ClipItem:
        """Return a clip's key and caption, without opening it."""
        return self._clips[index].item

    def num_frames(self, index: int) -> int:
        """Return how many frames a clip has; raise `FileError` if it is missing, empty, cut off or no clip."""
        return look(self._clips[index].place).num_frames

    def fps(self, index: int) -> float:
        """Return a clip's frames per second; 8 for pictures that do not say. Raises as `num_frames`."""
        return look(self._clips[index].place).fps

    def frames(self, index: int, positions: Sequence[int]) -> UInt8[np.ndarray, "frames height width 3"]:
        """Return exactly those frames, in that order; raise `FileError` for a broken clip or a frame beyond its end."""
        if not positions:
            raise FileError(f"{self._clips[index].place}: expected at least one frame to be asked for.")
        ascending = sorted(set(positions))
        found = list(self.stream(index, ascending))
        place = {position: number for number, position in enumerate(ascending)}
        return np.stack([found[place[position]] for position in positions])

    def stream(self, index: int, positions: Sequence[int]) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield the frames at `positions`, which ascend, in one pass; raise as `frames`."""
        place = self._clips[index].place
        shape: tuple[int, ...] | None = None
        for frame in pick(place, checked(positions, look(place).num_frames, place)):
            shape = shape or frame.shape
            if frame.shape != shape:
                raise FileError(
                    f"{place}: a frame is {frame.shape[1]}x{frame.shape[0]}, those before {shape[1]}x{shape[0]}."
                )
            yield frame

    def fingerprint(self) -> str:
        """Return a sha256 over the kind, the keys, the captions and the sizes of the files."""
        digest = hashlib.sha256(self._kind.encode())
        for clip in self._clips:
            facts = [clip.item.key, clip.item.caption, clip.place.num_bytes()]
            digest.update(json.dumps(facts).encode() + b"\n")
        return digest.hexdigest()


def _with_own_keys(clips: Iterable[ListedClip]) -> list[ListedClip]:
    seen: Counter[str] = Counter()
    found = []
    for clip in clips:
        key = clip.item.key
        seen[key] += 1
        if seen[key] > 1:
            clip = replace(clip, item=ClipItem(f"{key}#{seen[key]}", clip.item.caption))  # noqa: PLW2901
        found.append(clip)
    return found
