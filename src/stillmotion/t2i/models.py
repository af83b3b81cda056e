"""A personalised text-to-image model, in parts: what every other room takes for "the image model"."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

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
        """Return where the UNet is."""
        return self.unet.device

    def to(self, device: str | torch.device, dtype: torch.dtype) -> "T2I":
        """Move all parts; return the model itself."""
        for part in (self.unet, self.vae, self.text_encoder):
            nn.Module.to(part, device=device, dtype=dtype)  # diffusers' own `to` warns of every cast
        return self

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Float[Tensor, "batch tokens features"]:
        """Return the text features of each prompt; what is over the encoder's length is cut."""
        length = self.text_encoder.config.max_position_embeddings
        tokens = self.tokenizer(
            list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        return self.text_encoder(tokens.input_ids.to(self.text_encoder.device)).last_hidden_state

    def tokens_cut(self, prompt: str) -> int:
        """Return how many tokens of the prompt are over the encoder's length, and so have no effect."""
        length = self.text_encoder.config.max_position_embeddings
        return max(len(self.tokenizer(prompt, truncation=False, verbose=False).input_ids) - length, 0)

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
        found: DiagonalGaussianDistribution = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype)).latent_dist
        return found

    @torch.no_grad()
    def decode(self, latents: Latents) -> Pixels:
        """Return the pictures, float32, clamped to [-1, 1]."""
        unscaled = latents.to(self.vae.device, self.vae.dtype) / self.vae.config.scaling_factor
        return self.vae.decode(unscaled).sample.float().clamp(-1, 1)
