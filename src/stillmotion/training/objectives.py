"""What is learned: pictures to latents and back, pictures with captions, noise out of latents.

Every objective draws its batch from the step's number alone (see `loop.Objective`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from jaxtyping import Float, Int
from torch import Tensor, nn

from stillmotion.sampling.denoiser import Denoiser
from stillmotion.sampling.schedule import Diffusion
from stillmotion.seeding import generator
from stillmotion.training.loop import Part


@dataclass
class VaeObjective:
    """A variational autoencoder: what comes back is what went in, edges included, and latents stay bounded."""

    module: AutoencoderKL
    batch: Callable[[int], Float[Tensor, "images 3 height width"]]
    seed: int
    kl_weight: float = 1e-5
    edge_weight: float = 1.0

    def losses(self, step: int) -> Iterator[Part]:
        """Yield the absolute error of pixels and of their differences, with the KL term."""
        pixels = self.batch(step)
        posterior = self.module.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator(self.seed, "vae posterior", step))
        back = self.module.decode(posterior.mean + posterior.std * noise.to(pixels)).sample
        error = back - pixels
        edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        psnr = -10 * torch.log10(error.detach().square().mean() / 4)
        loss = error.abs().mean() + self.edge_weight * edges + self.kl_weight * kl
        yield Part(loss, {"psnr": float(psnr)})


@dataclass(frozen=True)
class Captioned:
    """Pictures as CLIP takes them, with the tokens of their captions."""

    pixels: Float[Tensor, "images 3 height width"]
    tokens: Int[Tensor, "images length"]
    same: Float[Tensor, "images images"]  # 1 where two captions say the same, so that neither is the other's negative


@dataclass
class ClipObjective:
    """Contrastive pairs of picture and caption (Radford et al. 2021), equal captions counted as matches."""

    module: nn.Module  # a transformers CLIPModel, or what answers as it does
    batch: Callable[[int], Captioned]

    def losses(self, step: int) -> Iterator[Part]:
        """Yield the symmetric cross-entropy of the batch's similarities."""
        batch = self.batch(step)
        out = self.module(input_ids=batch.tokens, pixel_values=batch.pixels)
        target = batch.same / batch.same.sum(1, keepdim=True)
        picture, text = out.logits_per_image, out.logits_per_text
        loss = -(target * F.log_softmax(picture, 1)).sum(1).mean() - (target * F.log_softmax(text, 1)).sum(1).mean()
        right = batch.same.gather(1, picture.argmax(1, keepdim=True)).mean()
        yield Part(loss / 2, {"right": float(right)})


@dataclass(frozen=True)
class LatentBatch:
    """Clean latents with the text features of their captions, one row set per clip."""

    latents: Float[Tensor, "batch channels frames height width"]
    text: Float[Tensor, "batch tokens features"]


@dataclass
class DenoisingObjective:
    """Predicting the noise: paper Eq. 2 on single frames, Eq. 7 on clips; one timestep per clip, noise per frame."""

    module: nn.Module  # whose parameters are trained: the UNet, or what is plugged into it
    denoiser: Denoiser
    diffusion: Diffusion
    batch: Callable[[int], LatentBatch]
    seed: int

    def losses(self, step: int) -> Iterator[Part]:
        """Yield the mean loss over the step's clips."""
        batch = self.batch(step)
        chance = generator(self.seed, "noise", step)
        noise = torch.randn(batch.latents.shape, generator=chance).to(batch.latents)
        # Stratified: one timestep in each of `batch` equal parts, so that the loss says more in fewer steps.
        count = len(batch.latents)
        spread = (torch.arange(count) + torch.rand(count, generator=chance)) / count
        timesteps = (spread * len(self.diffusion.alphas_cumprod)).long().to(noise.device)
        yield Part(self.denoiser.loss(batch.latents, noise, timesteps, batch.text, self.diffusion).mean())
