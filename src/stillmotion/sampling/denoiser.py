"""The denoiser: noisy clips in, the model's prediction out. Loss and sampling both go through it, so what is trained is
what is sampled.
"""

from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int, Num
from torch import Tensor

from stillmotion.sampling.schedule import Diffusion
from stillmotion.shapes import fold_frames, repeat_per_frame, unfold_frames

Latents = Float[Tensor, "batch channels frames height width"]
Text = Float[Tensor, "batch tokens features"]


@dataclass(frozen=True)
class Guidance:
    """What a clip is drawn towards, and how far from what (Ho and Salimans 2022)."""

    text: Text
    """Features of the prompt."""
    empty: Text
    """Features of the negative prompt, or of the empty one."""
    scale: float = 1.0
    """How far to go; 1 follows the prompt alone, and computes one half of the batch only."""


class Denoiser:
    """A UNet, plugged with motion or plain, that takes clips.

    A plain UNet sees every frame as a picture of its own, so one frame makes it the image model.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.unet = unet

    def __call__(
        self,
        latents: Latents,
        timesteps: Num[Tensor, ""] | Int[Tensor, "batch"] | int | float,
        text: Text,
        **extra: object,
    ) -> Latents:
        """Return the prediction for `latents` at one timestep for all or one per clip.

        `text` has one set of rows per clip, or one per frame (batch·frames). `extra` goes to the UNet as it is
        (ControlNet residuals, `added_cond_kwargs`), in image layout. The UNet computes in its own dtype, the prediction
        has the latents': a sampler adds up many small steps, and does so best in float32.
        """
        frames = latents.shape[2]
        rows = text if len(text) == len(latents) * frames else repeat_per_frame(text, frames)
        times = torch.as_tensor(timesteps, device=latents.device)
        times = times.repeat_interleave(frames) if times.ndim else times
        images, dtype = fold_frames(latents), self.unet.dtype
        predicted = self.unet(images.to(dtype), times, encoder_hidden_states=rows.to(dtype), **extra).sample
        return unfold_frames(predicted.to(latents.dtype), frames)

    def guided(self, latents: Latents, timestep: Tensor, guidance: Guidance, **extra: object) -> Latents:
        """Return the guided prediction, both halves computed in one batch."""
        if guidance.scale == 1:
            return self(latents, timestep, guidance.text, **extra)
        text = torch.cat([guidance.empty, guidance.text])
        without, told = self(torch.cat([latents, latents]), timestep, text, **extra).chunk(2)
        return without + guidance.scale * (told - without)

    def loss(
        self, latents: Latents, noise: Latents, timesteps: Int[Tensor, "batch"], text: Text, diffusion: Diffusion
    ) -> Float[Tensor, "batch"]:
        """Return each clip's mean squared error of the prediction: paper Eq. 2 for one frame, Eq. 7 for clips."""
        noisy = diffusion.add_noise(latents, noise, timesteps)
        predicted = self(noisy, timesteps, text)
        return (predicted - diffusion.target(latents, noise, timesteps)).float().square().mean((1, 2, 3, 4))
