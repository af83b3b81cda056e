"""Prompts into text features: of any length, with weights, from any layer of the text encoder.

A prompt without weights that fits the encoder is encoded as it always was. The others are compel's work: a long one is
read in pieces of the encoder's length, cut at a comma or full stop where there is one, and their features follow one
another; a weight above 1 leads the features of its words further from those of an empty text, one below 1 towards those of
the prompt without the words. All prompts of a call come out equally long, filled up with the features of an empty text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from stillmotion.errors import ConfigError
from stillmotion.t2i.emphasis import Piece, weighted
from stillmotion.t2i.words import Words
from stillmotion.turns import place_of

Features = Float[Tensor, "prompts tokens width"]


@dataclass(frozen=True, eq=False)
class Reader:
    """A text encoder, read at one of its last layers."""

    encoder: CLIPTextModel | CLIPTextModelWithProjection
    clip_skip: int = 1
    """Which layer from the end is read; 1 is the last, as in A1111."""
    inner: bool = False
    """Whether 1 is the layer before the last, and nothing goes through the last norm, as in Stable Diffusion XL."""

    def __post_init__(self) -> None:
        layers = int(self.encoder.config.num_hidden_layers) - self.inner
        if not 1 <= self.clip_skip <= layers:
            raise ConfigError(
                f"clip_skip: expected an integer from 1 (the last layer read) to {layers}, since the model's text encoder has "
                f"{layers} layers, got {self.clip_skip}"
            )

    @property
    def length(self) -> int:
        """Return how many tokens the encoder reads at once, those of start and end included."""
        return int(self.encoder.config.max_position_embeddings)

    @property
    def device(self) -> torch.device:
        """Return where the encoder takes what it reads."""
        return place_of(self.encoder)

    @property
    def dtype(self) -> torch.dtype:
        """Return how the encoder's numbers are held."""
        return self.encoder.dtype

    def read(self, numbers: Int[Tensor, "prompts tokens"], mask: Tensor | None = None) -> Features:
        """Return the features at each token; those of an earlier layer go through the last norm, too, as in diffusers."""
        if self.inner:
            outputs = self.encoder(numbers.to(self.device), attention_mask=mask, output_hidden_states=True)
            return outputs.hidden_states[-self.clip_skip - 1]
        if self.clip_skip == 1:
            return self.encoder(numbers.to(self.device), attention_mask=mask).last_hidden_state
        outputs = self.encoder(numbers.to(self.device), attention_mask=mask, output_hidden_states=True)
        model = getattr(self.encoder, "text_model", self.encoder)
        return model.final_layer_norm(outputs.hidden_states[-self.clip_skip])

    def __call__(self, numbers: Tensor, mask: Tensor | None = None, **_: object) -> SimpleNamespace:
        """Return what compel asks of a text encoder."""
        masks = mask is not None and not bool(mask.all())
        return SimpleNamespace(last_hidden_state=self.read(numbers, mask if masks else None))


def unweighted(prompts: Sequence[str]) -> list[str]:
    """Return the texts of prompts, without what says how strongly a piece is meant."""
    return ["".join(text for text, _ in weighted(prompt)) for prompt in prompts]


def pooled_features(
    encoder: CLIPTextModelWithProjection, words: Words, texts: Sequence[str]
) -> Float[Tensor, "texts pooled"]:
    """Return the features of each text as a whole: those at its end, projected. What is over the encoder's length is cut."""
    numbers = words.rows(texts, int(encoder.config.max_position_embeddings)).to(place_of(encoder))
    # Not the encoder's own choice, which takes the largest number for the end: learnt words have larger ones.
    ends = (numbers == words.eos_token_id).int().argmax(-1)
    last = encoder.text_model(numbers).last_hidden_state
    return encoder.text_projection(last[torch.arange(len(last), device=last.device), ends])


def encode_prompts(reader: Reader, words: Words, prompts: Sequence[str]) -> Features:
    """Return the features of each prompt, weights and lengths as the module says."""
    told = [weighted(prompt) for prompt in prompts]
    plain = unweighted(prompts)
    simple = [
        all(weight == 1 or not text.strip() for text, weight in pieces)
        and len(words.numbers(text_)) + 2 <= reader.length
        for pieces, text_ in zip(told, plain, strict=True)
    ]
    if all(simple):
        return reader.read(words.rows(plain, reader.length))
    weigher = _Weigher(reader, words)
    found = [
        reader.read(words.rows([text], reader.length)) if is_simple else weigher.encode(pieces)
        for text, pieces, is_simple in zip(plain, told, simple, strict=True)
    ]
    return torch.cat(weigher.evened(found))


class _Weigher:
    """compel, with the pieces of a prompt as they were read here instead of its own syntax."""

    def __init__(self, reader: Reader, words: Words) -> None:
        # It loads every pipeline that it knows, so not before it is needed.
        from compel import Compel, SplitLongTextMode  # noqa: PLC0415
        from compel.prompt_parser import FlattenedPrompt  # noqa: PLC0415

        self._prompt = FlattenedPrompt
        self._compel: Any = Compel(
            tokenizer=words,
            text_encoder=reader,
            truncate_long_prompts=False,
            split_long_text_mode=SplitLongTextMode.PHRASES,
            model_max_length=reader.length,
        )

    def encode(self, pieces: Sequence[Piece]) -> Features:
        told = [piece for piece in pieces if piece[0].strip()] or [("", 1.0)]
        (features, _), _ = self._compel.build_conditioning_tensor_for_prompt_object(self._prompt(told))
        return features

    def evened(self, features: Sequence[Tensor]) -> list[Tensor]:
        evened: list[Tensor] = self._compel.pad_conditioning_tensors_to_same_length(list(features))
        return evened
