"""Words that are learnt after the text encoder was trained: vectors beside its vocabulary, under names of their own.

Neither the tokenizer nor the stored vectors change. Where a prompt has such a word, its place is taken by as many token
numbers beyond the vocabulary as the word has vectors (Textual Inversion, arXiv 2208.01618, with several vectors as A1111
has them), and a stand-in of the embedding layer knows those numbers. Without a word the layer itself is back in its place.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from stillmotion.errors import ConfigError, MismatchError

Vectors = Float[Tensor, "vectors width"]


class Words:
    """A tokenizer with learnt words, none at first. A word is found in any case, as CLIP's own are, and whole."""

    def __init__(self, tokenizer: CLIPTokenizer, encoder: CLIPTextModel | CLIPTextModelWithProjection) -> None:
        self._tokenizer, self._encoder = tokenizer, encoder
        self._learnt: list[tuple[tuple[str, ...], Vectors]] = []
        self._own: nn.Module | None = None
        self._arranged: dict[str, int] = {}
        self._pattern = _pattern(())

    def learn(self, names: Sequence[str], vectors: Vectors, where: str) -> None:
        """Add a word, which may have several names.

        Raises:
            ConfigError: A name is taken by another learnt word.
            MismatchError: The vectors are not of the text encoder's width; `where` says whose they are.
        """
        width = int(self._encoder.get_input_embeddings().weight.shape[1])
        if vectors.shape[1] != width:
            raise MismatchError(
                f"{where} has vectors of width {vectors.shape[1]}, the model's text encoder takes {width}: it was made "
                "for another kind of model."
            )
        if twice := [name for name in names if name.casefold() in self._arranged]:
            raise ConfigError(f"{where}: the word {twice[0]!r} is taken by another; give it one of its own: word=FILE")
        self._learnt.append((tuple(names), vectors))
        self._arrange()

    def forget(self, names: Sequence[str]) -> None:
        """Take a word out again; after the last one the embedding layer is the model's own."""
        self._learnt = [entry for entry in self._learnt if entry[0] != tuple(names)]
        self._arrange()

    def used_in(self, text: str) -> set[str]:
        """Return every name of the learnt words that a text has."""
        found = {self._arranged[match[0].casefold()] for match in self._pattern.finditer(text)}
        return {name for index in found for name in self._learnt[index][0]}

    def numbers(self, text: str) -> list[int]:
        """Return the token numbers of a text, without those of its start and end."""
        found: list[int] = []
        done = 0
        for match in self._pattern.finditer(text):
            found += self._plain(text[done : match.start()]) + self._numbers_of(self._arranged[match[0].casefold()])
            done = match.end()
        return found + self._plain(text[done:])

    def rows(self, texts: Sequence[str], length: int) -> Int[Tensor, "texts length"]:
        """Return the token numbers of each text, with start and end, padded to the length; what is over it is cut."""
        if not any(self._pattern.search(text) for text in texts):
            options: dict[str, Any] = {"padding": "max_length", "max_length": length, "truncation": True}
            return self._tokenizer(list(texts), return_tensors="pt", **options).input_ids
        rows = [[self.bos_token_id, *self.numbers(text)[: length - 2], self.eos_token_id] for text in texts]
        return torch.tensor([row + [self.pad_token_id] * (length - len(row)) for row in rows])

    # --- what compel asks of a tokenizer ---

    @property
    def bos_token_id(self) -> int:
        """Return the number that begins every text."""
        return int(self._tokenizer.bos_token_id)

    @property
    def eos_token_id(self) -> int:
        """Return the number that ends every text."""
        return int(self._tokenizer.eos_token_id)

    @property
    def pad_token_id(self) -> int:
        """Return the number that fills a text up."""
        return int(self._tokenizer.pad_token_id)

    def __call__(self, texts: Sequence[str], **_: object) -> dict[str, list[list[int]]]:
        """Return the token numbers of each text, neither padded nor cut."""
        return {"input_ids": [[self.bos_token_id, *self.numbers(text), self.eos_token_id] for text in texts]}

    def convert_ids_to_tokens(self, numbers: Sequence[int]) -> list[str]:
        """Return each token as text; that of a learnt word ends, as every word's does, with its last vector."""
        size, ends, count = self._size, set(), 0
        for _, vectors in self._learnt:
            count += len(vectors)
            ends.add(count - 1)
        return [
            self._tokenizer.convert_ids_to_tokens(number)
            if number < size
            else "learnt</w>"
            if number - size in ends
            else "learnt"
            for number in numbers
        ]

    # ---

    @property
    def _size(self) -> int:
        return int(self._encoder.get_input_embeddings().weight.shape[0])

    def _plain(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids if text.strip() else []

    def _numbers_of(self, index: int) -> list[int]:
        start = self._size + sum(len(vectors) for _, vectors in self._learnt[:index])
        return list(range(start, start + len(self._learnt[index][1])))

    def _arrange(self) -> None:
        """Bring pattern and embedding layer in line with the words."""
        layer = self._encoder.get_input_embeddings()
        if self._own is None:
            self._own = layer
        self._arranged = {name.casefold(): index for index, (names, _) in enumerate(self._learnt) for name in names}
        self._pattern = _pattern(self._arranged)
        if self._learnt:
            layer = _Lexicon(self._own, torch.cat([vectors for _, vectors in self._learnt]))
            self._encoder.set_input_embeddings(layer)
        else:
            self._encoder.set_input_embeddings(self._own)
            self._own = None


class _Lexicon(nn.Embedding):
    """The model's own vectors, shared, and those of learnt words under the numbers after them."""

    learnt: Tensor

    def __init__(self, own: Any, learnt: Vectors) -> None:
        super().__init__(own.num_embeddings, own.embedding_dim, device="meta")
        self.weight = own.weight
        self.register_buffer("learnt", learnt.to(own.weight), persistent=False)

    def forward(self, numbers: Int[Tensor, "*places"]) -> Float[Tensor, "*places width"]:
        """Return the vector of each number."""
        beyond = numbers >= self.num_embeddings
        known = super().forward(numbers.clamp(max=self.num_embeddings - 1))
        learnt = nn.functional.embedding((numbers - self.num_embeddings).clamp(min=0), self.learnt)
        return torch.where(beyond.unsqueeze(-1), learnt, known)


def _pattern(names: Iterable[str]) -> re.Pattern[str]:
    """Return what finds the names as whole words; of several that begin alike, the longest."""
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in longest_first) or "(?!)", re.IGNORECASE)
