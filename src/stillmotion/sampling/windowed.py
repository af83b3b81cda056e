"""A long clip's prediction, window by window: the UNet sees one at a time, so its memory does not grow with the clip."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from stillmotion.sampling.context import Window
from stillmotion.sampling.control import Moment
from stillmotion.sampling.denoiser import Denoiser, Guidance
from stillmotion.turns import place_of

Latents = Float[Tensor, "batch channels frames height width"]

Look = Callable[[Sequence[int], int], None]
"""Told before each prediction which frames of the clip it is for, and in which step: what is plugged in goes by it."""


class WindowedPrediction:
    """The guided prediction for a whole clip in one step, made of its windows' predictions.

    Latents may lie elsewhere than the UNet: only a window of them goes there at a time. Iterating does the work and
    yields after each window; `value` is the result.
    """

    def __init__(self, denoiser: Denoiser, windows: Sequence[Window], look: Look | None = None) -> None:
        self.denoiser, self.windows, self._look = denoiser, windows, look
        self.value: Latents | None = None

    def steps(
        self, latents: Latents, timestep: Tensor, guidance: Guidance, *, progress: float, step: int
    ) -> Iterator[int]:
        """Predict for `latents`; yield how many windows are done after each."""
        everything = tuple(range(latents.shape[2]))
        total = None if len(self.windows) == 1 else torch.zeros_like(latents, dtype=torch.float32)
        for done, window in enumerate(self.windows, start=1):
            frames = list(window.frames)
            whole = window.frames == everything
            part = latents if whole else latents[:, :, frames]
            if self._look is not None:
                self._look(frames, step)
            place = place_of(self.denoiser.unet)
            predicted = self.denoiser.guided(
                part.to(place),
                timestep.to(place),
                guidance,
                moment=Moment(frames=range(len(frames)) if whole else frames, progress=progress),
            ).to(latents.device)
            if total is None:
                self.value = predicted
            else:
                weights = torch.tensor(window.weights, device=total.device).view(-1, 1, 1)
                total[:, :, frames] += predicted.float() * weights
                self.value = total.to(latents.dtype) if done == len(self.windows) else None
            yield done
