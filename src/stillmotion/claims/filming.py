"""Clips for the claims: the embedded models' `animate`, its models kept from clip to clip, contact sheets beside."""

from typing import Any

import numpy as np
from jaxtyping import UInt8

from stillmotion.animate import AnimateConfig, Session, animate
from stillmotion.baselines import BaselineConfig, baseline
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
        return self._shown(animate(config, session=self._session).frames, called, prompt)

    def film_baseline(self, config: BaselineConfig) -> Frames:
        """Return the clip of a baseline, in as many steps as `film` takes."""
        told = config.replace(num_inference_steps=self._budget.num_inference_steps)
        return self._shown(baseline(told, session=self._session).frames, config.method, config.prompt)

    def _shown(self, frames: Frames, called: str, prompt: str) -> Frames:
        """Write the contact sheet of a clip, where sheets are wanted, and return the clip."""
        if self._budget.sheets is not None:
            self._count += 1
            name = "-".join(part for part in (self._claim, f"{self._count:03}", called, prompt) if part)
            contact_sheet(frames, self._budget.sheets / f"{name.replace(' ', '-')}.png")
        return frames
