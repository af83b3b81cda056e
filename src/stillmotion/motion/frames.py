"""Which frames of the clip a forward is for: what everything that is plugged in goes by.

A batch holds all frames of a clip, or a context window of them. What is given per frame of the clip, such as a strength,
is looked up here for the frames at hand.
"""

import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stillmotion.errors import MismatchError

Curve = float | tuple[float, ...]
"""A value for all frames, or one for each frame of the clip."""

Part = tuple[Int[Tensor, "part"], Float[Tensor, "1 part 1 1"]]


@dataclass
class FrameCount:
    """How many frames the clips of the batch have, and which. One object is shared by all hooks.

    It is never changed in a forward, but for `part` while an attention goes through its own windows.
    """

    num_frames: int
    shown: tuple[int, ...] | None = None
    """Numbers of the frames at hand in the clip; None for all of it, from 0."""
    strength: Curve = 1.0
    """How much of the motion is added, 1 as trained, 0 none."""
    windows: tuple[tuple[tuple[int, ...], tuple[float, ...]], ...] = ()
    """Windows that attention looks through, as (places among the frames at hand, weights); none: at all at once."""
    part: tuple[int, ...] | None = None
    """The places of the window that an attention is at; None elsewhere."""
    _tensors: dict[Hashable, Tensor] = field(default_factory=dict, repr=False)

    def look(self, frames: Sequence[int]) -> None:
        """Say which frames of the clip the next forward is for, in order."""
        self.num_frames, self.shown = len(frames), tuple(frames)

    def pick(self, curve: Curve) -> Curve:
        """Return the curve over the frames at hand; a number where they all have the same."""
        if isinstance(curve, (int, float)):  # not a union: PyTorch 2.7 cannot compile one
            return float(curve)
        frames = self.shown if self.shown is not None else range(self.num_frames)
        if max(frames) >= len(curve):
            raise MismatchError(f"{len(curve)} values were given per frame, but frame {max(frames)} is to be computed.")
        at_hand = [curve[frame] for frame in frames]
        values = [at_hand[place] for place in self.part] if self.part is not None else at_hand
        return values[0] if len(set(values)) == 1 else tuple(values)

    def along(self, values: tuple[float, ...], like: Tensor) -> Float[Tensor, "values"]:
        """Return values as a tensor where `like` is, made once."""
        return self._kept((values, like.device, like.dtype), lambda: torch.tensor(values).to(like))

    def parts(self, like: Tensor) -> Iterator[Part]:
        """Yield every window of attention as (places, weights), `part` set meanwhile."""
        try:
            for places, weights in self.windows:
                self.part = places
                yield (
                    self._kept((places, like.device), functools.partial(torch.tensor, places, device=like.device)),
                    self.along(weights, like).view(1, -1, 1, 1),
                )
        finally:
            self.part = None

    def _kept(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        # Copying a list to a GPU waits for everything queued there; twenty sites would wait in every step.
        if key not in self._tensors:
            if len(self._tensors) > 512:
                self._tensors.clear()
            self._tensors[key] = make()
        return self._tensors[key]
