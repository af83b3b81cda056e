"""A training step as the reference trainer writes it, to be measured against."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from stillmotion.t2i import T2I


@dataclass(frozen=True, kw_only=True)
class PlainStep:
    """What one optimizer step of the plain loop did."""

    loss: float
    seconds: float
    encoding: float
    """Seconds of those that VAE and text encoder took."""


class PlainLoop:
    """The loop of AnimateDiff's `train.py` (guoyww/AnimateDiff), without its readers and logs.

    Every step encodes the clips with the VAE and the captions with the text encoder, both in float32, and computes the
    UNet under autocast where half precision is asked for. The clips are decoded beforehand: `pixels`, in [-1, 1]. Linear
    layers are PyTorch's own, as in anyone's loop (docs/decisions/0011).
    """

    def __init__(
        self,
        t2i: T2I,
        module: nn.Module,
        noise_schedule: DDIMScheduler,
        pixels: Float[Tensor, "batch frames 3 height width"],
        captions: Sequence[str],
        dtype: torch.dtype,
    ) -> None:
        self._t2i, self._noise_schedule, self._pixels, self._dtype = t2i, noise_schedule, pixels, dtype
        tokenizer = t2i.tokenizer
        self._tokens = tokenizer(
            list(captions),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)

    def step(self) -> PlainStep:
        """Do one optimizer step on all clips."""
        started = time.perf_counter()
        t2i, count, frames = self._t2i, self._pixels.shape[0], self._pixels.shape[1]
        with torch.no_grad():
            images = rearrange(self._pixels, "b f c h w -> (b f) c h w")
            drawn = t2i.vae.encode(images).latent_dist.sample()
            latents = rearrange(drawn, "(b f) c h w -> b c f h w", f=frames) * t2i.vae.config.scaling_factor
            text = t2i.text_encoder(self._tokens)[0]
        encoding = time.perf_counter() - started
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, self._noise_schedule.config.num_train_timesteps, (count,))
        noisy = self._noise_schedule.add_noise(latents, noise, timesteps)
        with torch.autocast("cpu", self._dtype, enabled=self._dtype is not torch.float32):
            predicted = t2i.unet(
                rearrange(noisy, "b c f h w -> (b f) c h w"),
                timesteps.repeat_interleave(frames),
                encoder_hidden_states=repeat(text, "b t d -> (b f) t d", f=frames),
            ).sample
        target = rearrange(noise, "b c f h w -> (b f) c h w")
        loss = F.mse_loss(predicted.float(), target.float())
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)  # here, since the next step of the other loop is on these gradients
        seconds = time.perf_counter() - started
        return PlainStep(loss=float(loss.detach()), seconds=seconds, encoding=encoding)
