"""The denoiser: noisy clips in, the model's prediction out. Loss and sampling both go through it, so what is trained is
what is sampled.
"""

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor

from stillmotion.sampling.schedule import Diffusion
from stillmotion.shapes import fold_frames, repeat_per_frame, unfold_frames

Latents = Float[Tensor, "batch channels frames height width"]
Text = Float[Tensor, "batch tokens features"]


class Denoiser:
    """A UNet, plugged with motion or plain, that takes clips.

    A plain UNet sees every frame as a picture of its own, so one frame makes it the image model.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.unet = unet

    def __call__(
        self,
        latents: Latents,
        timesteps: Int[Tensor, ""] | Int[Tensor, "batch"] | int | float,
        text: Text,
        **extra: object,
    ) -> Latents:
        """Return the prediction for `latents` at one timestep for all or one per clip.

        `text` has one set of rows per clip, or one per frame (batch·frames). `extra` goes to the UNet as it is
        (ControlNet residuals, `added_cond_kwargs`), in image layout.
        """
        frames = latents.shape[2]
        rows = text if len(text) == len(latents) * frames else repeat_per_frame(text, frames)
        times = torch.as_tensor(timesteps, device=latents.device)
        times = times.repeat_interleave(frames) if times.ndim else times
        predicted = self.unet(fold_frames(latents), times, encoder_hidden_states=rows, **extra).sample
        return unfold_frames(predicted, frames)

    def guided(
        self, latents: Latents, timestep: Tensor, text: Text, empty: Text, guidance_scale: float, **extra: object
    ) -> Latents:
        """Return the classifier-free guided prediction (Ho and Salimans 2022), both halves in one batch.

        `guidance_scale` 1 means the caption alone, and computes one half only.
        """
        if guidance_scale == 1:
            return self(latents, timestep, text, **extra)
        both = self(torch.cat([latents, latents]), timestep, torch.cat([empty, text]), **extra)
        without, told = both.chunk(2)
        return without + guidance_scale * (told - without)

    def loss(
        self, latents: Latents, noise: Latents, timesteps: Int[Tensor, "batch"], text: Text, diffusion: Diffusion
    ) -> Float[Tensor, "batch"]:
        """Return each clip's mean squared error of the prediction: paper Eq. 2 for one frame, Eq. 7 for clips."""
        noisy = diffusion.add_noise(latents, noise, timesteps)
        predicted = self(noisy, timesteps, text)
        return (predicted - diffusion.target(latents, noise, timesteps)).float().square().mean((1, 2, 3, 4))
