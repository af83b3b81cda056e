"""Context windows: which frames of a long clip a motion module sees at once, and how much it is believed about each.

A motion module was trained on few frames, so a longer clip is denoised in windows that overlap; where they do, their
predictions are averaged. Everything here is a pure function of (frames, step), so a plan can be shown before anything is
rendered.

- `static`: the same windows in every step, the last one moved back so that it ends with the clip.
- `uniform`: the grid of windows moves from step to step, so that no seam stays in place. It never runs over the end.
- `looped`: the same grid on a circle: the last frames and the first ones share windows, so the clip closes.

`uniform` and `looped` are ComfyUI-AnimateDiff-Evolved's `standard_uniform` and `looped_uniform` (the latter animatediff-cli's
`uniform`), without their faults: no frame is left out, beyond the end or twice in a window.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stillmotion.errors import ConfigError
from stillmotion.sampling.names import FusionName, ScheduleName


@dataclass(frozen=True)
class Window:
    """Some frames of a clip, seen at once, in this order."""

    frames: tuple[int, ...]
    """Numbers of the frames; none comes twice."""
    weights: tuple[float, ...]
    """The share of each frame's prediction that comes from here. Over all windows of a step they sum to one."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """How a clip that is longer than a window is divided."""

    schedule: ScheduleName = "static"
    """Where the windows lie; see the module."""
    length: int = 16
    """Frames of a window."""
    overlap: int | None = None
    """Frames that neighbouring windows share; a quarter of the length by default."""
    dilation: int = 1
    """The widest step between frames of a window, a power of two: 4 adds windows of every second and every fourth frame."""
    fusion: FusionName = "pyramid"
    """What counts how much where windows overlap: all the same, the middle more, or a ramp over the overlap alone."""
    closed: bool = False
    """Whether a clip that fits into one window is to close too: two windows then go around it, half a round apart."""

    def __post_init__(self) -> None:
        """Refuse by `ConfigError` what no windows can be made of."""
        if self.length < 1:
            raise ConfigError(f"context_length: expected an integer >= 1, got {self.length}")
        if self.overlap is not None and not 0 <= self.overlap < self.length:
            raise ConfigError(
                f"context_overlap: expected an integer from 0 to {self.length - 1}, since each window of {self.length} "
                f"frames must begin after the one before it, got {self.overlap}"
            )
        if self.dilation < 1 or self.dilation & (self.dilation - 1):
            raise ConfigError(f"context_dilation: expected a power of two (1, 2, 4 …), got {self.dilation}")
        if self.dilation > 1 and self.schedule == "static":
            raise ConfigError(
                f"context_dilation: the windows of a static schedule are of adjacent frames, got {self.dilation}; use "
                f"context uniform or looped, or leave it out"
            )
        if self.closed and self.schedule != "looped":
            raise ConfigError(f"loop: a closed loop needs windows that wrap, got context {self.schedule}; use looped")

    @property
    def shared(self) -> int:
        """Return how many frames neighbouring windows share."""
        return self.length // 4 if self.overlap is None else self.overlap

    @property
    def hop(self) -> int:
        """Return how far one window is from the next."""
        return self.length - self.shared

    def windows(self, num_frames: int, step: int = 0) -> tuple[Window, ...]:
        """Return the windows of a step (from 0): one of all frames where they fit into one and nothing is to close.

        Every frame is in one of them at least. No window has a frame twice or one beyond the clip, and all are of the
        same length.
        """
        if num_frames < 1:
            raise ConfigError(f"num_frames: expected an integer >= 1, got {num_frames}")
        if num_frames == 1 or (num_frames <= self.length and not self.closed):
            return (Window(tuple(range(num_frames)), (1.0,) * num_frames),)
        if num_frames <= self.length:
            # Half a round apart: where one window begins and ends, the other has its middle, which counts more.
            first = int(num_frames * ordered_halving(step))
            begins = (first, (first + num_frames // 2) % num_frames)
            return _fused([(*range(at, num_frames), *range(at)) for at in begins], self, num_frames)
        found = dict.fromkeys(_LAYOUTS[self.schedule](self, num_frames, step))  # a window that comes twice counts once
        return _fused(list(found), self, num_frames)

    def passes(self, num_frames: int, num_steps: int) -> tuple[int, ...]:
        """Return how many windows each of `num_steps` steps has: what a step costs, in windows."""
        return tuple(len(self.windows(num_frames, step)) for step in range(num_steps))


def ordered_halving(step: int) -> float:
    """Return 0, 1/2, 1/4, 3/4, 1/8 …: the step's bits reversed behind the point (van der Corput, base 2)."""
    return int(f"{step:064b}"[::-1], 2) / 2**64


def _static(context: Context, num_frames: int, step: int) -> Iterator[tuple[int, ...]]:  # noqa: ARG001  # as the others
    for start in range(0, num_frames, context.hop):
        if start + context.length >= num_frames:
            yield tuple(range(num_frames - context.length, num_frames))
            return
        yield tuple(range(start, start + context.length))


def _looped(context: Context, num_frames: int, step: int) -> Iterator[tuple[int, ...]]:
    for dilation in _dilations(context, num_frames):
        for start in _starts(context, num_frames, step, dilation, closed=True):
            yield tuple((start + dilation * place) % num_frames for place in range(context.length))


def _uniform(context: Context, num_frames: int, step: int) -> Iterator[tuple[int, ...]]:
    for dilation in _dilations(context, num_frames):
        span = dilation * (context.length - 1) + 1
        starts = [s % num_frames for s in _starts(context, num_frames, step, dilation, closed=False)]
        for place, start in enumerate(starts):
            if start + span <= num_frames:
                yield tuple(range(start, start + span, dilation))
                continue
            # It would run over the end: moved back, it ends there. What it would have had of the beginning is in the
            # window that the grid has next, or in one of its own.
            yield tuple(range(num_frames - span, num_frames, dilation))
            left = (start + dilation * -((start - num_frames) // dilation)) % num_frames
            following = starts[(place + 1) % len(starts)]
            if left not in range(following, num_frames, dilation)[: context.length] and left + span <= num_frames:
                yield tuple(range(left, left + span, dilation))


def _dilations(context: Context, num_frames: int) -> Iterator[int]:
    """Yield 1, 2, 4 … up to the context's, as far as such a window fits into the clip and is not needed in full."""
    dilation = 1
    while dilation <= context.dilation and dilation * (context.length - 1) + 1 <= num_frames:
        yield dilation
        dilation *= 2


def _starts(context: Context, num_frames: int, step: int, dilation: int, *, closed: bool) -> range:
    """Return where windows of a dilation begin, counted on beyond the clip's end."""
    share = ordered_halving(step)
    moved = round(num_frames * share)
    end = num_frames + moved - (0 if closed else context.shared)
    return range(int(share * dilation) + moved, end, context.length * dilation - context.shared)


_LAYOUTS = {"static": _static, "uniform": _uniform, "looped": _looped}


def _fused(windows: Sequence[tuple[int, ...]], context: Context, num_frames: int) -> tuple[Window, ...]:
    """Return the windows with weights that sum to one for every frame."""
    raw = [_raw_weights(window, context, num_frames) for window in windows]
    total = [0.0] * num_frames
    for window, weights in zip(windows, raw, strict=True):
        for frame, weight in zip(window, weights, strict=True):
            total[frame] += weight
    return tuple(
        Window(window, tuple(weight / total[frame] for frame, weight in zip(window, weights, strict=True)))
        for window, weights in zip(windows, raw, strict=True)
    )


def _raw_weights(window: Sequence[int], context: Context, num_frames: int) -> list[float]:
    length, shared = len(window), context.shared
    if context.fusion == "pyramid":
        return [float(min(place, length - 1 - place) + 1) for place in range(length)]
    if context.fusion == "flat" or not shared:
        return [1.0] * length
    # Where nothing overlaps, at the ends of a clip that does not close, nothing is taken back.
    opens = context.schedule == "looped" or window[0] != 0
    closes = context.schedule == "looped" or window[-1] != num_frames - 1
    rising = [min(1.0, (place + 1) / (shared + 1)) if opens else 1.0 for place in range(length)]
    falling = [min(1.0, (length - place) / (shared + 1)) if closes else 1.0 for place in range(length)]
    return [min(up, down) for up, down in zip(rising, falling, strict=True)]
