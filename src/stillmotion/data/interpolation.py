"""Frames between frames, by FFmpeg's `minterpolate`: it follows what moves, and draws it where it is in between.

A clip's own frames are left as they are, to the bit. Edges are repeated outwards for the filter alone, which sees neither
what is near them nor frames below 32 pixels well.
"""

import itertools
from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from typing import final

import av
import av.filter
import numpy as np
from jaxtyping import UInt8

from stillmotion.errors import ConfigError

Frame = UInt8[np.ndarray, "height width 3"]
Frames = UInt8[np.ndarray, "frames height width 3"]
Ready = UInt8[np.ndarray, "ready height width 3"]

FILTER = "minterpolate"
FEWEST = 2
"""Frames that a clip must have for anything to be between them."""

# Small blocks that overlap as much as they move alike: in tests the ones that leave a square's edges where they belong.
_OPTIONS = "mi_mode=mci:mc_mode=aobmc:mb_size=8"
_EDGE = 16  # pixels repeated outwards on each side
_AHEAD = 2  # frames that the filter wants after the one that it draws towards


def require_interpolation() -> None:
    """Raise `ConfigError` where the FFmpeg that PyAV brings cannot draw frames in between."""
    if FILTER not in av.filter.filters_available:
        raise ConfigError(
            f"interpolate: frames in between are drawn by FFmpeg's filter {FILTER}, which is not in the FFmpeg that PyAV uses "
            f"here; install PyAV with its own FFmpeg (pip install --force-reinstall --only-binary av av), or leave it out"
        )


@final
class Interpolator:
    """Takes the frames of a clip a few at a time and returns them with `factor` - 1 more after each.

    Of n frames become n · factor, so at `factor` times the rate a clip takes as long as before. What follows the last
    frame leads to the first where the clip is `closed`; otherwise the last frame stands for as long as it did. It holds
    a few frames, however long the clip is. At a cut, which the filter finds, a frame is repeated and not blended.
    """

    def __init__(self, factor: int, *, closed: bool = False) -> None:
        if factor < 1:
            raise ConfigError(f"interpolate: expected a factor of 1 or more, got {factor}")
        if factor > 1:
            require_interpolation()
        self._factor, self._closed = factor, closed
        self._graph: av.filter.Graph | None = None
        self._first: list[Frame] = []
        self._waiting: deque[Frame] = deque()  # own frames that are not returned yet
        self._last: Frame | None = None
        self._count = self._pushed = self._drawn = 0

    def add(self, frames: Frames) -> Ready:
        """Take the next frames; return those that are ready, of the ones before too."""
        if self._factor == 1 or not len(frames):
            return frames
        ready: list[Frame] = []
        for frame in frames:
            self._first += [frame] if len(self._first) < _AHEAD else []
            self._count, self._last = self._count + 1, frame
            self._waiting.append(frame)
            ready += self._push(frame)
        return _stacked(ready, frames[0])

    def finish(self) -> Ready:
        """Return the frames that are left.

        Raises `ConfigError` where there were too few for anything to be between them.
        """
        if self._factor == 1:
            return np.zeros((0, 1, 1, 3), np.uint8)
        if self._last is None or self._count < FEWEST:
            raise ConfigError(f"interpolate: expected a clip of {FEWEST} frames or more, got {self._count}")
        ready: list[Frame] = []
        for frame in self._first if self._closed else [self._last] * _AHEAD:
            ready += self._push(frame)
        assert self._graph is not None
        self._graph.push(None)
        ready += self._pull()
        return _stacked(ready, self._last)

    def _push(self, frame: Frame) -> list[Frame]:
        if self._graph is None:
            self._graph = _graph((frame.shape[0], frame.shape[1]), self._factor)
        edged = np.pad(frame, ((_EDGE, _EDGE), (_EDGE, _EDGE), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(edged, format="rgb24")
        picture.pts, picture.time_base = self._pushed, Fraction(1)
        self._pushed += 1
        self._graph.push(picture)
        return self._pull()

    def _pull(self) -> list[Frame]:
        """Return what the filter has drawn by now, own frames in the place of its copies."""
        assert self._graph is not None
        ready: list[Frame] = []
        while True:
            try:
                drawn = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return ready
            place, between = divmod(self._drawn, self._factor)
            self._drawn += 1
            if place >= self._count:
                continue  # what was given only to be drawn towards
            if not between:
                ready.append(self._waiting.popleft())
            elif place == self._count - 1 and not self._closed:
                assert self._last is not None
                ready.append(self._last)
            else:
                assert isinstance(drawn, av.VideoFrame)
                whole = drawn.to_ndarray(format="rgb24")
                ready.append(np.ascontiguousarray(whole[_EDGE:-_EDGE, _EDGE:-_EDGE]))


def _graph(size: tuple[int, int], factor: int) -> av.filter.Graph:
    """Return the filter for frames of that height and width, a second apart; it works on full chroma."""
    height, width = (side + 2 * _EDGE for side in size)
    graph = av.filter.Graph()
    parts = [
        graph.add_buffer(width=width, height=height, format="rgb24", time_base=Fraction(1)),
        graph.add("format", "pix_fmts=yuv444p"),
        graph.add(FILTER, f"fps={factor}:{_OPTIONS}"),
        graph.add("format", "pix_fmts=rgb24"),
        graph.add("buffersink"),
    ]
    for part, following in itertools.pairwise(parts):
        part.link_to(following)
    graph.configure()
    return graph


def _stacked(frames: Sequence[Frame], like: Frame) -> Ready:
    return np.stack(frames) if frames else np.zeros((0, *like.shape), np.uint8)
