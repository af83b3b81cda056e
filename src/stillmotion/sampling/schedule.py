"""The noise schedule: the one place that knows how much signal and noise a timestep has.

Symbols as in the paper: ᾱ_t is the share of the signal's power left at timestep t, ε the noise, z_0 the clean latents.
"""

from dataclasses import dataclass
from typing import Any

from diffusers import DDIMScheduler
from jaxtyping import Float, Int
from torch import Tensor

from stillmotion.errors import ConfigError

PREDICTION_TYPES = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class Diffusion:
    """The forward process that a model was trained on, and what it predicts."""

    alphas_cumprod: Float[Tensor, "timesteps"]
    prediction_type: str = "epsilon"

    def __post_init__(self) -> None:
        """Refuse a prediction type that nothing here can train or sample."""
        if self.prediction_type not in PREDICTION_TYPES:
            raise ConfigError(
                f"prediction_type {self.prediction_type!r} is unknown; expected one of {PREDICTION_TYPES}."
            )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Diffusion":
        """Return the process that a diffusers scheduler's config describes."""
        scheduler = DDIMScheduler.from_config(config)
        return cls(scheduler.alphas_cumprod, config.get("prediction_type", "epsilon"))

    def signal_and_noise(self, timesteps: Int[Tensor, "batch"], like: Tensor) -> tuple[Tensor, Tensor]:
        """Return √ᾱ_t and √(1 − ᾱ_t) per clip, shaped to multiply `like`, whose first axis is the batch."""
        kept = self.alphas_cumprod.to(like.device)[timesteps].view(-1, *[1] * (like.ndim - 1)).to(like.dtype)
        return kept.sqrt(), (1 - kept).sqrt()

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Int[Tensor, "batch"]) -> Tensor:
        """Return z_t = √ᾱ_t z_0 + √(1 − ᾱ_t) ε (paper Eq. 1)."""
        signal, spread = self.signal_and_noise(timesteps, latents)
        return signal * latents + spread * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Int[Tensor, "batch"]) -> Tensor:
        """Return what the model is to predict: ε, or v = √ᾱ_t ε − √(1 − ᾱ_t) z_0 (Salimans and Ho 2022, Eq. 9)."""
        if self.prediction_type == "epsilon":
            return noise
        signal, spread = self.signal_and_noise(timesteps, latents)
        return signal * noise - spread * latents

    def clean(self, noisy: Tensor, predicted: Tensor, timesteps: Int[Tensor, "batch"]) -> Tensor:
        """Return the clean latents z_0 that the prediction stands for at z_t: `target`, solved for them."""
        signal, spread = self.signal_and_noise(timesteps, noisy)
        if self.prediction_type == "epsilon":
            return (noisy - spread * predicted) / signal
        return signal * noisy - spread * predicted

    def min_snr_weight(self, timesteps: Int[Tensor, "batch"], gamma: float) -> Float[Tensor, "batch"]:
        """Return what each clip's loss is multiplied by: min(SNR, γ) / SNR for ε, over SNR + 1 for v (Hang et al. 2023)."""
        kept = self.alphas_cumprod.to(timesteps.device)[timesteps].double()
        snr = kept / (1 - kept)
        over = snr if self.prediction_type == "epsilon" else snr + 1
        return (snr.clamp(max=gamma) / over).float()
