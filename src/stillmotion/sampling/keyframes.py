"""Values given for some frames, told for every frame.

Keys are frame numbers; a negative one counts from the end. Before the first key its value holds, after the last one the
last; in a closed loop the last one travels on to the first. A prompt holds for a share of its span, then blends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from stillmotion.errors import ConfigError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Place:
    """Where a frame is between two keys."""

    first: int
    """Which key is behind it, counted in the order of frames."""
    second: int
    """Which key is before it; the same where nothing changes."""
    share: float = 0.0
    """How much of the second it has, from 0 up to but not 1."""


def frame_of(key: int, num_frames: int, where: str) -> int:
    """Return the frame that a key means, -1 being the last; raise `ConfigError` beginning with `where` beyond the clip."""
    if not -num_frames <= key < num_frames:
        raise ConfigError(
            f"{where}.{key}: expected a frame from 0 to {num_frames - 1}, or from -{num_frames} to -1 counted from the end"
        )
    return key % num_frames


def by_frame(keyed: Mapping[int, Value], num_frames: int, where: str) -> dict[int, Value]:
    """Return what is keyed by frames in their order, none of them negative.

    Raises `ConfigError` for no key at all, a key beyond the clip, and two keys that mean one frame.
    """
    if not keyed:
        raise ConfigError(f"{where}: expected a frame at least, got none")
    found: dict[int, Value] = {}
    for key, value in keyed.items():
        frame = frame_of(key, num_frames, where)
        if frame in found:
            raise ConfigError(f"{where}.{key}: frame {frame} is given twice")
        found[frame] = value
    return dict(sorted(found.items()))


def places(frames: Sequence[int], num_frames: int, *, hold: float = 0.0, closed: bool = False) -> tuple[Place, ...]:
    """Return where every frame of a clip is between keys at `frames`, which ascend.

    `hold` is the share of each span, from 0 to 1, in which the key behind holds; 1 changes at the next key at once.
    """
    found = []
    for frame in range(num_frames):
        behind = max((i for i, key in enumerate(frames) if key <= frame), default=-1)
        ahead = behind + 1
        if closed and len(frames) > 1:
            begins = frames[behind] if behind >= 0 else frames[-1] - num_frames
            ends = frames[ahead] if ahead < len(frames) else frames[0] + num_frames
            behind, ahead = behind % len(frames), ahead % len(frames)
        elif behind < 0 or ahead == len(frames):
            end = max(behind, 0)
            found.append(Place(end, end))
            continue
        else:
            begins, ends = frames[behind], frames[ahead]
        along = (frame - begins) / (ends - begins)
        share = max(0.0, (along - hold) / (1 - hold)) if hold < 1 else 0.0
        found.append(Place(behind, ahead, share) if share else Place(behind, behind))
    return tuple(found)


def curve(keyed: Mapping[int, float], num_frames: int, where: str, *, closed: bool = False) -> tuple[float, ...]:
    """Return the value at every frame of {frame: value}, on straight lines between the keys."""
    ordered = by_frame(keyed, num_frames, where)
    values = list(ordered.values())
    return tuple(
        values[at.first] + at.share * (values[at.second] - values[at.first])
        for at in places(list(ordered), num_frames, closed=closed)
    )
