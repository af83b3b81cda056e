"""Frames by number out of one clip: one seek backwards to the first that is wanted, then decoding forwards.

Frames are told apart by their time stamps, which a first pass reads without decoding, so that clips of varying rate,
with B-frames or with an edit list come out exact. Nothing is returned in place of a frame that cannot be read.
"""

import functools
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from stillmotion.data.folders import frame_files
from stillmotion.data.reading import SAFE, index_end, is_picture_clip, looks_like, probe, promised_seconds, read_frames
from stillmotion.data.sources.place import Place
from stillmotion.errors import FileError

STILLS = (".png", ".jpg", ".jpeg", ".bmp")
"""Endings of single pictures."""

_UNSAID_FPS = 8.0  # of pictures that do not say how fast they follow each other
_TELL_TIME = (
    "mp4",
    "matroska",
)  # containers that store when a frame is shown, and seek by it; others are decoded whole
_HIDDEN_FRAMES = ("vp8",)  # codecs with packets that show nothing, so that packets are no count of frames
_SEALED = {"protocol_whitelist": "none"}  # what lies in a tar has no business with other files
_DAMAGE = (av.FFmpegError, OSError, ValueError, EOFError, SyntaxError, struct.error, Image.DecompressionBombError)

Frame = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class Facts:
    """What one pass over a clip tells."""

    num_frames: int
    fps: float
    times: tuple[int, ...] | None = None
    """The time stamp of each frame, ascending; None where they do not tell frames apart, or there are none."""


def look(place: Place) -> Facts:
    """Return what a clip is; raise `FileError` if it is missing, empty, cut off or no clip."""
    return _look(place, place.stamp())


@functools.lru_cache(maxsize=32)
def _look(place: Place, stamp: tuple[int, int]) -> Facts:
    # The stamp is part of the question, so that a file which was changed is looked at again.
    with _damage_named(place):
        if _is_still(place):
            return Facts(1, _UNSAID_FPS)
        if not _is_container(place):
            with place.as_file() as path:
                info = probe(path)
            return Facts(info.num_frames, info.fps or _UNSAID_FPS)
        return _look_at_container(place, stamp[0])


def pick(place: Place, positions: Sequence[int]) -> Iterator[Frame]:
    """Yield the frames at `positions`, which ascend and may repeat, turned upright, at the clip's own size."""
    facts = look(place)
    with _damage_named(place):
        if _is_still(place):
            frames: Iterator[Frame] = iter([_still(place)])
        elif place.path.is_dir():
            files, wanted = frame_files(place.path), sorted(set(positions))
            rank = {position: number for number, position in enumerate(wanted)}
            frames = (_still(Place(files[position])) for position in wanted)
            positions = [rank[position] for position in positions]
        elif not _is_container(place):
            with place.as_file() as path:
                yield from _at(read_frames(path), positions, place)
            return
        elif facts.times is None:
            frames = _decoded(place, None)
        else:
            yield from _by_time(place, [facts.times[position] for position in positions])
            return
        yield from _at(frames, positions, place)


def _at(frames: Iterator[Frame], positions: Sequence[int], place: Place) -> Iterator[Frame]:
    """Yield those of a clip's frames whose numbers, which ascend, are asked for."""
    at, frame = -1, None
    for position in positions:
        while at < position:
            at, frame = at + 1, next(frames, None)
        if frame is None:
            raise FileError(f"{place}: the clip is truncated after {at} frames; get the file again.")
        yield frame


def _by_time(place: Place, times: Sequence[int]) -> Iterator[Frame]:
    frames = _shown(place, times[0]) if times else iter(())
    shown: Any = None
    for time in times:
        while shown is None or shown.pts < time:
            shown = next(frames, None)
            if shown is None:
                raise FileError(f"{place}: the clip is truncated; get the file again.")
        if shown.pts != time:
            raise FileError(f"{place}: a frame cannot be decoded; the clip is damaged, get the file again.")
        yield _upright(shown)


def _shown(place: Place, time: int) -> Iterator[Any]:
    """Yield decoded frames from one at or before `time` on."""
    frames = _decoder_output(place, time)
    first = next(frames, None)
    if first is None or first.pts > time:
        # Some containers seek by decoding time, and land behind the frame that was asked for.
        frames.close()
        yield from _decoder_output(place, None)
        return
    yield first
    yield from frames


def _decoded(place: Place, time: int | None) -> Iterator[Frame]:
    return (_upright(frame) for frame in _decoder_output(place, time))


def _decoder_output(place: Place, time: int | None) -> Any:
    """Yield the decoder's frames, from the key frame before `time` on if it is given."""
    with _container(place) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # many clips are decoded at once; threads would only wait
        if time is not None:
            container.seek(time, stream=stream)
        yield from container.decode(stream)


def _upright(frame: Any) -> Frame:
    return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)


def _look_at_container(place: Place, num_bytes: int) -> Facts:
    with _container(place) as container:
        stream = container.streams.video[0]
        rate, tick = stream.average_rate or Fraction(0), stream.time_base or Fraction(0)
        cut_off = index_end(stream) > num_bytes
        promised, formats = promised_seconds(stream), container.format.name.split(",")
        timed = bool({*formats} & {*_TELL_TIME}) and stream.codec_context.name not in _HIDDEN_FRAMES
        times = [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
    known = timed and None not in times
    times = sorted(times) if known else times
    if known and times and rate:
        cut_off = cut_off or float(times[-1] * tick) + 1.5 / float(rate) < promised
    if cut_off:
        raise FileError(f"{place}: the clip is truncated: its end is missing; get the file again.")
    exact = known and all(before != after for before, after in pairwise(times))
    count = len(times) if exact else sum(1 for _ in _decoder_output(place, None))
    if count == 0:
        raise FileError(f"{place}: expected a clip, but it holds no frame.")
    return Facts(count, float(rate) or _UNSAID_FPS, tuple(times) if exact else None)


@contextmanager
def _container(place: Place) -> Iterator[Any]:
    with place.opened() as stream:
        head = stream.read(512)
        stream.seek(0)
        try:
            container = av.open(stream if place.member else str(place.path), options=_SEALED if place.member else SAFE)
        except (av.FFmpegError, OSError) as error:
            raise FileError(f"{place}: expected a clip, but it {looks_like(head)}.") from error
        with container:
            if not container.streams.video:
                raise FileError(f"{place}: expected a clip, but it holds no pictures (only sound or data).")
            yield container


def _is_container(place: Place) -> bool:
    if place.path.is_dir():
        return False
    with place.opened() as stream:
        return not is_picture_clip(stream.read(16))


def _is_still(place: Place) -> bool:
    return place.suffix in STILLS and not place.path.is_dir()


def _still(place: Place) -> Frame:
    with _damage_named(place), place.opened() as stream, Image.open(stream) as picture:
        return np.asarray(picture.convert("RGB"))


@contextmanager
def _damage_named(place: Place) -> Iterator[None]:
    """Turn what the libraries raise for a damaged file into a `FileError`."""
    try:
        yield
    except FileError:
        raise
    except _DAMAGE as error:
        raise FileError(f"{place}: the clip is damaged ({error}); get the file again.") from error
