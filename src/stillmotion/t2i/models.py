"""A personalised text-to-image model, in parts: what every other room takes for "the image model"."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from stillmotion.errors import MismatchError
from stillmotion.products import faster_products
from stillmotion.sampling import Text
from stillmotion.t2i.prompts import Reader, encode_prompts, pooled_features, unweighted
from stillmotion.t2i.words import Words
from stillmotion.turns import place_of

Pixels = Float[Tensor, "images 3 height width"]
Latents = Float[Tensor, "images channels rows columns"]


@dataclass
class T2I:
    """A Stable Diffusion model, loaded. Images are pixels in [-1, 1]; latents are scaled, in image layout."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler_config: dict[str, Any]
    """The noise schedule that the model itself was trained with, as diffusers keeps it."""
    source: str
    """Where it came from, as the user said it."""
    files: dict[Path, str] = field(default_factory=dict)
    """Every weight file that was read, and which part it gave."""
    report: list[str] = field(default_factory=list)
    """What of the files was applied, and what was skipped and why."""
    text_encoder_2: CLIPTextModelWithProjection | None = None
    """The second text encoder of Stable Diffusion XL."""
    tokenizer_2: CLIPTokenizer | None = None
    """What it reads by."""
    zeros_for_empty_text: bool = True
    """Whether Stable Diffusion XL was trained with features of zeros in an empty text's place."""
    words: Words = field(init=False)
    """The tokenizer with the words that were learnt later."""
    words_2: Words | None = field(init=False, default=None)
    """The same for the second text encoder."""

    def __post_init__(self) -> None:
        self.words = Words(self.tokenizer, self.text_encoder)
        if self.text_encoder_2 is not None and self.tokenizer_2 is not None:
            self.words_2 = Words(self.tokenizer_2, self.text_encoder_2)

    @property
    def is_xl(self) -> bool:
        """Return whether it is of Stable Diffusion XL: with two text encoders, and a UNet that takes sizes."""
        return self.text_encoder_2 is not None

    def require_sd1(self, what: str) -> None:
        """Raise `MismatchError` for a model of Stable Diffusion XL; `what` would need one of 1.x."""
        if self.is_xl:
            raise MismatchError(
                f"{self.source} is a Stable Diffusion XL model, which makes clips here; {what} takes models of Stable "
                "Diffusion 1.x."
            )

    @property
    def prediction_type(self) -> str:
        """Return what the UNet predicts: "epsilon" or "v_prediction"."""
        return str(self.scheduler_config.get("prediction_type", "epsilon"))

    @property
    def scale(self) -> int:
        """Return how many pixels a latent is wide."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def native_size(self) -> int:
        """Return the side of the pictures that the model was trained on, in pixels."""
        return int(self.unet.config.sample_size) * self.scale

    @property
    def device(self) -> torch.device:
        """Return where the UNet takes what it computes on."""
        return place_of(self.unet)

    def to(self, device: str | torch.device, dtype: torch.dtype) -> "T2I":
        """Move all parts; return the model itself. A VAE of Stable Diffusion XL that overflows in float16 stays in float32."""
        for part in self.parts.values():
            nn.Module.to(part, device=device, dtype=dtype)  # diffusers' own `to` warns of every cast
        if self.is_xl and dtype is torch.float16 and self.vae.config.get("force_upcast", False):
            nn.Module.to(self.vae, dtype=torch.float32)
        return self

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Return everything that has weights, by name."""
        found: dict[str, nn.Module] = {"unet": self.unet, "vae": self.vae, "text_encoder": self.text_encoder}
        return found | ({"text_encoder_2": self.text_encoder_2} if self.text_encoder_2 is not None else {})

    @torch.no_grad()
    def encode_text(
        self, prompts: Sequence[str], *, clip_skip: int = 1, literal: bool = False
    ) -> Float[Tensor, "batch tokens features"]:
        r"""Return the text features of each prompt, all equally long.

        Args:
            prompts: Of any length, with weights as `(word:1.2)`, `(word)` and `[word]`, a bracket itself as `\(`.
            clip_skip: Which layer of the text encoder from the end is read; 1 is the last.
            literal: Take every bracket as it stands, and cut what is over the encoder's length: captions to train on.

        Raises:
            ConfigError: The encoder has not so many layers.
        """
        readers = [(Reader(self.text_encoder, clip_skip, inner=self.is_xl), self.words)]
        if self.text_encoder_2 is not None and self.words_2 is not None:
            readers.append((Reader(self.text_encoder_2, clip_skip, inner=True), self.words_2))
        with _faster(self.text_encoder):
            found = [
                reader.read(words.rows(prompts, reader.length)) if literal else encode_prompts(reader, words, prompts)
                for reader, words in readers
            ]
        return torch.cat(found, -1)

    @torch.no_grad()
    def text(self, prompts: Sequence[str], *, clip_skip: int = 1, height: int = 0, width: int = 0) -> Text:
        """Return all that the UNet is told of each prompt, for pictures of that size; arguments as `encode_text`.

        For Stable Diffusion XL that is also the whole text's features and the size, and nothing but zeros for an empty
        text where the model was trained so (Podell et al. 2023, §2.2).
        """
        tokens = self.encode_text(prompts, clip_skip=clip_skip)
        if self.text_encoder_2 is None or self.words_2 is None:
            return Text(tokens)
        with _faster(self.text_encoder_2):
            pooled = pooled_features(self.text_encoder_2, self.words_2, unweighted(prompts))
        if self.zeros_for_empty_text:
            said = torch.tensor([bool(prompt.strip()) for prompt in prompts], device=tokens.device)
            tokens, pooled = tokens * said.view(-1, 1, 1), pooled * said.view(-1, 1)
        size = (height or self.native_size, width or self.native_size)
        return Text(tokens, pooled, (*size, 0, 0, *size))

    @torch.no_grad()
    def encode_images(self, pixels: Pixels, generator: torch.Generator | None = None) -> Latents:
        """Return scaled latents: drawn from the posterior by `generator`, or its mean without one."""
        posterior = self.posterior(pixels)
        drawn = posterior.mean
        if generator is not None:
            noise = torch.randn(posterior.mean.shape, generator=generator)
            drawn = posterior.mean + posterior.std * noise.to(posterior.mean)
        return drawn * self.vae.config.scaling_factor

    @torch.no_grad()
    def posterior(self, pixels: Pixels) -> DiagonalGaussianDistribution:
        """Return what the VAE says of pictures: the mean and spread of their latents, unscaled."""
        with _faster(self.vae):
            encoded = self.vae.encode(pixels.to(place_of(self.vae), self.vae.dtype))
        found: DiagonalGaussianDistribution = encoded.latent_dist
        return found

    @torch.no_grad()
    def decode(self, latents: Latents) -> Pixels:
        """Return the pictures, float32, clamped to [-1, 1]."""
        unscaled = latents.to(place_of(self.vae), self.vae.dtype) / self.vae.config.scaling_factor
        with _faster(self.vae):
            decoded = self.vae.decode(unscaled).sample
        return decoded.float().clamp(-1, 1)


def _faster(part: AutoencoderKL | CLIPTextModel | CLIPTextModelWithProjection) -> AbstractContextManager[object]:
    """Return the context that a part computes in: the same whoever asks, a training step or a thread that reads ahead."""
    return faster_products(part.dtype, place_of(part))
