"""A new word of a text encoder: a few rows beside its embeddings, which alone are trained (Gal et al. 2022, §4).

The table of known words is left where it is, not enlarged and not copied, so nothing of it can change.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from stillmotion.errors import ConfigError
from stillmotion.t2i import T2I


class KnownAndNew(nn.Module):
    """An embedding of known words followed by new rows: indices past the known ones are the new ones."""

    def __init__(self, known: nn.Embedding, rows: Float[Tensor, "vectors features"]) -> None:
        super().__init__()
        self.known = known
        self.rows = nn.Parameter(rows)

    @property
    def weight(self) -> Tensor:
        """Return the rows of known words, as of an embedding."""
        return self.known.weight

    def forward(self, indices: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens features"]:
        """Return a row for each index."""
        first = self.known.num_embeddings
        known = self.known(indices.clamp(max=first - 1))
        new = F.embedding((indices - first).clamp(min=0), self.rows).to(known.dtype)
        return torch.where((indices < first)[..., None], known, new)


@dataclass(frozen=True)
class NewWord:
    """A word at work in an image model."""

    token: str
    rows: nn.Parameter
    """Its vectors, to be trained."""


@contextmanager
def new_word(t2i: T2I, token: str, num_vectors: int, initial_words: str) -> Iterator[NewWord]:
    """Teach a model a word that begins as known ones; afterwards the model knows it no more.

    Raises `ConfigError` where the tokenizer knows the word already, or nothing of `initial_words`.
    """
    encoder: Any = t2i.text_encoder
    vocabulary = t2i.tokenizer.get_vocab()
    if token in vocabulary or f"{token.lower()}</w>" in vocabulary:
        raise ConfigError(f"token: the model knows {token!r} already; choose a word that is none, such as <{token}-1>")
    begun = t2i.tokenizer(initial_words, add_special_tokens=False).input_ids
    if not begun:
        raise ConfigError(f"initial_words: expected words that the model knows, got {initial_words!r}")
    known = encoder.get_input_embeddings()
    rows = known.weight.detach()[[begun[index % len(begun)] for index in range(num_vectors)]].float().clone()
    t2i.words.learn((token,), rows, f"token {token}")  # which gives it numbers past those of known words
    try:
        embedding = KnownAndNew(known, rows)
        encoder.set_input_embeddings(embedding)
        yield NewWord(token, embedding.rows)
    finally:
        t2i.words.forget((token,))
