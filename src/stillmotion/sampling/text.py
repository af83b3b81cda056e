"""What a UNet is told of a prompt: features of its tokens, and, for Stable Diffusion XL, what it takes beside them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Tokens = Float[Tensor, "rows tokens features"]
Pooled = Float[Tensor, "rows pooled"]


@dataclass(frozen=True, eq=False)
class Text:
    """Features of texts, row by row: one per clip, or one per frame."""

    tokens: Tokens
    """Features of each token, which the UNet attends to."""
    pooled: Pooled | None = None
    """Features of each text as a whole, for a UNet of Stable Diffusion XL."""
    sizes: tuple[int, ...] = ()
    """Height and width of the original picture, top and left of the crop, height and width of the result, in pixels."""

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self.tokens)

    def __getitem__(self, rows: slice | Sequence[int]) -> "Text":
        """Return some of the rows."""
        return self.each(lambda part: part[rows if isinstance(rows, slice) else list(rows)])

    def repeat(self, times: int) -> "Text":
        """Return all rows again and again: the same for each clip."""
        return self.each(lambda part: part.repeat(times, *[1] * (part.ndim - 1)))

    def per_frame(self, frames: int) -> "Text":
        """Return every row once for each frame of its clip."""
        return self.each(lambda part: part.repeat_interleave(frames, 0))

    def to(self, dtype: torch.dtype) -> "Text":
        """Return the features as numbers of another kind."""
        return self.each(lambda part: part.to(dtype))

    def arguments(self) -> dict[str, Any]:
        """Return what the UNet's forward is called with beside the tokens."""
        if self.pooled is None:
            return {}
        sizes = torch.tensor(self.sizes, dtype=torch.float32, device=self.pooled.device)
        return {"added_cond_kwargs": {"text_embeds": self.pooled, "time_ids": sizes.expand(len(self), -1)}}

    def each(self, change: Callable[[Tensor], Tensor]) -> "Text":
        """Return both kinds of features, changed."""
        return Text(change(self.tokens), None if self.pooled is None else change(self.pooled), self.sizes)


def as_text(given: Tokens | Text) -> Text:
    """Return tokens alone as a text."""
    return given if isinstance(given, Text) else Text(given)


def joined(texts: Sequence[Text]) -> Text:
    """Return the rows of all texts, one after another; the sizes are the first one's."""
    pooled = [text.pooled for text in texts if text.pooled is not None]
    return Text(torch.cat([text.tokens for text in texts]), torch.cat(pooled) if pooled else None, texts[0].sizes)


def merged(*arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a UNet's forward is called with, of several sayings; conditions of all of them are added."""
    conditions = {name: value for said in arguments for name, value in said.get("added_cond_kwargs", {}).items()}
    together = {name: value for said in arguments for name, value in said.items()}
    return together | ({"added_cond_kwargs": conditions} if conditions else {})
