"""Clips for the claims: the embedded models' `animate`, its models kept from clip to clip, contact sheets beside."""

from typing import Any

import numpy as np
from jaxtyping import UInt8

from stillmotion.animate import AnimateConfig, Session, animate
from stillmotion.claims.finding import Budget
from stillmotion.data import contact_sheet

Frames = UInt8[np.ndarray, "frames height width 3"]


class Studio:
    """Makes clips of captions, as a budget allows."""

    def __init__(self, claim: str, budget: Budget) -> None:
        self._claim, self._budget, self._session, self._count = claim, budget, Session(), 0

    def film(self, prompt: str, seed: int, *, called: str = "", **fields: Any) -> Frames:
        """Return the clip of a caption; `fields` are `AnimateConfig`'s, `called` goes into the sheet's name."""
        steps = self._budget.num_inference_steps
        config = AnimateConfig(prompt=prompt, seed=seed, **{"num_inference_steps": steps, **fields})
        frames = animate(config, session=self._session).frames
        if self._budget.sheets is not None:
            self._count += 1
            name = "-".join(part for part in (self._claim, f"{self._count:03}", called, prompt) if part)
            contact_sheet(frames, self._budget.sheets / f"{name.replace(' ', '-')}.png")
        return frames
