"""Training clips by their global index: which clip, where it starts, its latents and its caption.

All of it is a function of (seed, purpose, global index), so a resumed run, and a run on another number of processes,
sees the same clips in the same order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from stillmotion.data import ClipRecipe, ClipSource, LatentCache, Quarantine, fit, positions
from stillmotion.data.sampling import flipped, long_enough, nearest_size
from stillmotion.errors import FileError
from stillmotion.seeding import generator
from stillmotion.t2i import T2I

Moments = tuple[Float[Tensor, "frames channels height width"], Float[Tensor, "frames channels height width"]]


@dataclass(frozen=True)
class Footage:
    """Clips that are seen as moments of their latents."""

    clips: ClipSource | LatentCache
    """What there is: how many, their keys, captions and lengths."""
    moments: Callable[[int, Sequence[int], bool], Moments]
    """Returns posterior mean and log-variance, unscaled, of the given frames of a clip, mirrored or not."""


def from_cache(cache: LatentCache) -> Footage:
    """Return the clips of a latent cache, whose recipe `recipe_on_cache` has checked: nothing in it is mirrored."""

    def moments(index: int, frames: Sequence[int], mirrored: bool) -> Moments:
        assert not mirrored
        mean, log_variance = cache.moments(index, frames)
        return mean.float(), log_variance.float()

    return Footage(cache, moments)


def from_clips(source: ClipSource, t2i: T2I, recipe: ClipRecipe) -> Footage:
    """Return clips that are decoded, fitted to a size of the recipe, and seen through the VAE when they are asked for."""

    def moments(index: int, frames: Sequence[int], mirrored: bool) -> Moments:
        pictures = source.frames(index, frames)
        width, height = nearest_size(pictures.shape[2], pictures.shape[1], recipe.sizes)
        posterior = t2i.posterior(fit(pictures, width, height, flip=mirrored))
        return posterior.mean.float().cpu(), posterior.logvar.float().cpu()

    return Footage(source, moments)


@dataclass(frozen=True)
class TrainingClip:
    """One clip of a batch."""

    key: str
    caption: str
    latents: Float[Tensor, "channels frames height width"]
    """Drawn from the posterior and scaled."""
    weight: float = 1.0
    """What its error is multiplied by."""


class TrainingClips:
    """The clips of a run by global index: epoch after epoch, each in an order of its own.

    `caption` stands in for their own: one for all, or several, of which each draw takes one. A broken clip is set aside,
    and the one after it in the epoch's order stands in; too many of them are a `FileError`.
    """

    def __init__(
        self,
        footage: Footage,
        recipe: ClipRecipe,
        *,
        seed: int,
        scaling_factor: float,
        caption: str | Sequence[str] | None = None,
        caption_dropout: float = 0.0,
        quarantine: Quarantine,
    ) -> None:
        self._footage, self._recipe, self._seed = footage, recipe, seed
        self._captions = (caption,) if isinstance(caption, str) else caption
        self._scaling_factor, self._dropout = scaling_factor, caption_dropout
        self._quarantine = quarantine
        lengths = [self._length(index) for index in range(len(footage.clips))]
        self.usable = [index for index, length in enumerate(lengths) if long_enough(length, recipe)]
        """The clips that are long enough; the others are skipped."""
        self._lengths = lengths
        self._order: tuple[int, list[int]] = (-1, [])

    @property
    def num_skipped(self) -> int:
        """Return how many clips are too short."""
        return len(self._lengths) - len(self.usable) - len(self._quarantine)

    def __getitem__(self, index: int) -> TrainingClip:
        """Return the clip of a global index, counted from 0 over the whole run."""
        epoch, place = divmod(index, len(self.usable))
        order = self._shuffled(epoch)
        for clip in (*order[place:], *order[:place]):
            try:
                return self._draw(clip, generator(self._seed, "clip", index), self._dropout)
            except FileError as error:
                self._set_aside(clip, error)
        raise FileError(self._quarantine.summary())

    def held(self, count: int) -> list[TrainingClip]:
        """Return one clip of each of the first `count` that can be used, always the same, with its caption."""
        found = []
        for clip in self.usable[:count]:
            try:
                found.append(self._draw(clip, generator(self._seed, "held clip", clip), 0.0))
            except FileError as error:
                self._set_aside(clip, error)
        return found

    def _draw(self, clip: int, chance: torch.Generator, dropout: float) -> TrainingClip:
        frames = positions(self._lengths[clip], self._recipe, chance)
        assert frames is not None  # usable
        mirrored = flipped(self._recipe, chance)
        dropped = float(torch.rand((), generator=chance)) < dropout
        item = self._footage.clips.item(clip)
        caption = self._said(item.caption, chance)
        mean, log_variance = self._footage.moments(clip, frames, mirrored)
        drawn = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=chance)
        return TrainingClip(
            key=item.key,
            caption="" if dropped else caption,
            latents=(drawn * self._scaling_factor).transpose(0, 1).contiguous(),
        )

    def _said(self, own: str, chance: torch.Generator) -> str:
        """Return a clip's caption: its own, the one for all, or one of those for all, drawn evenly."""
        if self._captions is None or len(self._captions) == 1:
            return own if self._captions is None else self._captions[0]
        return self._captions[int(torch.randint(len(self._captions), (), generator=chance))]

    def _length(self, clip: int) -> int:
        """Return how many frames a clip has; none if it is broken, which is noted."""
        try:
            return self._footage.clips.num_frames(clip)
        except FileError as error:
            self._set_aside(clip, error)
            return 0

    def _set_aside(self, clip: int, error: FileError) -> None:
        self._quarantine.add(self._footage.clips.item(clip).key, str(error))

    def _shuffled(self, epoch: int) -> list[int]:
        if self._order[0] != epoch:
            order = torch.randperm(len(self.usable), generator=generator(self._seed, "order", epoch))
            self._order = (epoch, [self.usable[place] for place in order.tolist()])
        return self._order[1]


def texts_of(t2i: T2I, kept: int = 4096) -> Callable[[Sequence[str]], Float[Tensor, "batch tokens features"]]:
    """Return a function that gives text features, remembering those of the last `kept` captions."""
    known: dict[str, Tensor] = {}

    def features(captions: Sequence[str]) -> Tensor:
        fresh = [caption for caption in dict.fromkeys(captions) if caption not in known]
        if fresh:
            known.update(zip(fresh, t2i.encode_text(fresh, literal=True), strict=True))
        rows = torch.stack([known[caption] for caption in captions])
        while len(known) > kept:
            known.pop(next(iter(known)))
        return rows

    return features
