"""Training clips by their global index: which clip, where it starts, its latents and its caption.

All of it is a function of (seed, purpose, global index), so a resumed run, and a run on another number of processes,
sees the same clips in the same order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from stillmotion.data import ClipRecipe, ClipSource, LatentCache, Quarantine, fit, positions
from stillmotion.data.sampling import flipped, long_enough
from stillmotion.errors import FileError
from stillmotion.seeding import generator
from stillmotion.t2i import T2I

Moments = tuple[Float[Tensor, "frames channels height width"], Float[Tensor, "frames channels height width"]]


@runtime_checkable
class Footage(Protocol):
    """Clips that can be looked at as moments of their latents: a cache, or a source seen through a VAE."""

    def __len__(self) -> int:
        """Return how many clips there are."""
        ...

    def key(self, index: int) -> str:
        """Return the clip's name."""
        ...

    def caption(self, index: int) -> str:
        """Return what the clip shows."""
        ...

    def num_frames(self, index: int) -> int:
        """Return how many source frames it has."""
        ...

    def moments(self, index: int, frames: Sequence[int], mirrored: bool) -> Moments:
        """Return the posterior mean and log-variance of those frames, unscaled."""
        ...


class CachedFootage:
    """Clips from a latent cache."""

    def __init__(self, cache: LatentCache) -> None:
        self._cache = cache

    def __len__(self) -> int:
        return len(self._cache)

    def key(self, index: int) -> str:
        """Return the clip's name."""
        return self._cache.item(index).key

    def caption(self, index: int) -> str:
        """Return what the clip shows."""
        return self._cache.item(index).caption

    def num_frames(self, index: int) -> int:
        """Return how many frames are cached."""
        return self._cache.num_frames(index)

    def moments(self, index: int, frames: Sequence[int], mirrored: bool) -> Moments:
        """Return what the cache holds; it has no mirrored pictures, whose latents are no mirror of the latents."""
        assert not mirrored  # refused by `recipe_on_cache`
        mean, log_variance = self._cache.moments(index, frames)
        return mean.float(), log_variance.float()


class FilmedFootage:
    """Clips decoded, fitted to the size, and seen through the VAE."""

    def __init__(self, source: ClipSource, t2i: T2I, recipe: ClipRecipe) -> None:
        self._source, self._t2i, self._recipe = source, t2i, recipe

    def __len__(self) -> int:
        return len(self._source)

    def key(self, index: int) -> str:
        """Return the clip's name."""
        return self._source.item(index).key

    def caption(self, index: int) -> str:
        """Return what the clip shows."""
        return self._source.item(index).caption

    def num_frames(self, index: int) -> int:
        """Return how many frames the file has."""
        return self._source.num_frames(index)

    @torch.no_grad()
    def moments(self, index: int, frames: Sequence[int], mirrored: bool) -> Moments:
        """Return the moments of the decoded frames."""
        width, height = self._recipe.width, self._recipe.height
        posterior = self._t2i.posterior(fit(self._source.frames(index, frames), width, height, flip=mirrored))
        return posterior.mean.float().cpu(), posterior.logvar.float().cpu()


@dataclass(frozen=True)
class TrainingClip:
    """One clip of a batch."""

    key: str
    caption: str
    latents: Float[Tensor, "channels frames height width"]
    """Drawn from the posterior and scaled."""


class TrainingClips:
    """The clips of a run by global index: epoch after epoch, each in an order of its own.

    A broken clip is set aside, and the one after it in the epoch's order stands in; too many of them are a `FileError`.
    """

    def __init__(
        self,
        footage: Footage,
        recipe: ClipRecipe,
        *,
        seed: int,
        scaling_factor: float,
        caption: str | None = None,
        caption_dropout: float = 0.0,
        quarantine: Quarantine | None = None,
    ) -> None:
        self._footage, self._recipe, self._seed = footage, recipe, seed
        self._scaling_factor, self._caption, self._dropout = scaling_factor, caption, caption_dropout
        self.quarantine = quarantine or Quarantine(len(footage))
        lengths = [self._length(index) for index in range(len(footage))]
        self.usable = [index for index, length in enumerate(lengths) if long_enough(length, recipe)]
        """The clips that are long enough; the others are skipped."""
        self._lengths = lengths
        self._order: tuple[int, list[int]] = (-1, [])

    @property
    def num_skipped(self) -> int:
        """Return how many clips are too short."""
        return len(self._lengths) - len(self.usable) - len(self.quarantine)

    def captions(self) -> list[str]:
        """Return the captions of the usable clips."""
        return [self._caption if self._caption is not None else self._footage.caption(i) for i in self.usable]

    def __getitem__(self, index: int) -> TrainingClip:
        """Return the clip of a global index, counted from 0 over the whole run."""
        epoch, place = divmod(index, len(self.usable))
        order = self._shuffled(epoch)
        for clip in (*order[place:], *order[:place]):
            try:
                return self._draw(clip, generator(self._seed, "clip", index))
            except FileError as error:
                self.quarantine.add(self._footage.key(clip), str(error))
        raise FileError(self.quarantine.summary())

    def _draw(self, clip: int, chance: torch.Generator) -> TrainingClip:
        frames = positions(self._lengths[clip], self._recipe, chance)
        assert frames is not None  # usable
        mirrored = flipped(self._recipe, chance)
        dropped = float(torch.rand((), generator=chance)) < self._dropout
        caption = self._caption if self._caption is not None else self._footage.caption(clip)
        mean, log_variance = self._footage.moments(clip, frames, mirrored)
        drawn = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=chance)
        return TrainingClip(
            key=self._footage.key(clip),
            caption="" if dropped else caption,
            latents=(drawn * self._scaling_factor).transpose(0, 1).contiguous(),
        )

    def _length(self, clip: int) -> int:
        """Return how many frames a clip has; none if it is broken, which is noted."""
        try:
            return self._footage.num_frames(clip)
        except FileError as error:
            self.quarantine.add(self._footage.key(clip), str(error))
            return 0

    def _shuffled(self, epoch: int) -> list[int]:
        if self._order[0] != epoch:
            order = torch.randperm(len(self.usable), generator=generator(self._seed, "order", epoch))
            self._order = (epoch, order.tolist())
        return self._order[1]


def texts_of(t2i: T2I, kept: int = 4096) -> Callable[[Sequence[str]], Float[Tensor, "batch tokens features"]]:
    """Return a function that gives text features, remembering those of the last `kept` captions."""
    known: dict[str, Tensor] = {}

    def features(captions: Sequence[str]) -> Tensor:
        fresh = [caption for caption in dict.fromkeys(captions) if caption not in known]
        if fresh:
            known.update(zip(fresh, t2i.encode_text(fresh), strict=True))
        rows = torch.stack([known[caption] for caption in captions])
        while len(known) > kept:
            known.pop(next(iter(known)))
        return rows

    return features
