"""Prompts that travel: features of a few texts, blended frame by frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from stillmotion.sampling.keyframes import Place
from stillmotion.sampling.names import BlendName
from stillmotion.sampling.text import Text

_PARALLEL = 1 - 1e-5  # beyond this cosine a great circle's arc is a line, and its formula 0/0


@dataclass(frozen=True)
class TravellingText:
    """Features of a few prompts, blended frame by frame when they are asked for: a clip's own would fill the memory."""

    features: Float[Tensor, "keys tokens features"] | Text
    """One set of rows per key, in the order of frames; features of texts as a whole travel with those of their tokens."""
    places: tuple[Place, ...]
    """Where every frame of the clip is between them."""
    blend: BlendName = "linear"
    """Mixed on a straight line, or on the great circle of each token (`slerp`)."""

    def rows(self, frames: Sequence[int]) -> Float[Tensor, "frames tokens features"] | Text:
        """Return the features for some frames of the clip."""
        at = [self.places[frame] for frame in frames]
        if isinstance(self.features, Text):
            return self.features.each(lambda part: self._mixed(part, at))
        return self._mixed(self.features, at)

    def _mixed(self, part: Float[Tensor, "keys *features"], at: Sequence[Place]) -> Float[Tensor, "frames *features"]:
        first, second = (part[[getattr(p, side) for p in at]] for side in ("first", "second"))
        share = torch.tensor([p.share for p in at], dtype=torch.float32, device=part.device)
        share = share.view(-1, *[1] * (part.ndim - 1))
        mixed = (_slerp if self.blend == "slerp" else torch.lerp)(first.float(), second.float(), share)
        # A key's own frame has its very features, whatever rounding the blend has.
        return torch.where(share == 0, first, mixed.to(first.dtype))

    def at_rest(self, frames: Sequence[int]) -> bool:
        """Return whether all these frames have the same features."""
        return len({(p.first, p.second, p.share) for p in (self.places[frame] for frame in frames)}) == 1


def _slerp(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Return points on the arc from one vector to the other (Shoemake 1985), lengths blended by the same weights."""
    cosine = torch.nn.functional.cosine_similarity(first, second, dim=-1).unsqueeze(-1)
    angle = torch.arccos(cosine.clamp(-_PARALLEL, _PARALLEL))
    arc = (torch.sin((1 - share) * angle) * first + torch.sin(share * angle) * second) / torch.sin(angle)
    return torch.where(cosine.abs() < _PARALLEL, arc, torch.lerp(first, second, share))
