"""The paper's CLIP scores (AnimateDiff, arXiv 2307.04725, §5.2): text, domain and smoothness, each 100 times a cosine."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from stillmotion.evaluation.measured import Measured
from stillmotion.t2i.clip_pair import ClipPair

_BATCH = 16  # frames that are read at once


class ClipScores:
    """Scores one clip, frame by frame.

    `prompt` and `references` are features of unit length, or None where there are none; `wanted` are the names of scores.
    """

    def __init__(
        self,
        clip: ClipPair,
        wanted: frozenset[str],
        prompt: Float[Tensor, "features"] | None,
        references: Float[Tensor, "pictures features"] | None,
    ) -> None:
        self._clip, self._wanted, self._prompt, self._references = clip, wanted, prompt, references
        self._waiting: list[np.ndarray] = []
        self._features: list[Tensor] = []

    def add(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Take the next frame."""
        self._waiting.append(frame)
        if len(self._waiting) >= _BATCH:
            self._read()

    def finish(self) -> Measured:
        """Return the scores."""
        self._read()
        frames, found = torch.cat(self._features), Measured()
        if "text" in self._wanted and self._prompt is not None:
            found.mean_of("text", (100 * frames @ self._prompt).tolist())
        if "domain" in self._wanted and self._references is not None:
            found.mean_of("domain", (100 * (frames @ self._references.T).mean(1)).tolist())
        if "smoothness" in self._wanted and len(frames) > 1:
            found.mean_of("smoothness", (100 * (frames[1:] * frames[:-1]).sum(1)).tolist())
        return found

    def _read(self) -> None:
        if self._waiting:
            self._features.append(self._clip.of_pictures(self._waiting))
            self._waiting = []
