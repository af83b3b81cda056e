"""Few steps instead of many: one step of a LoRA learns to go where the model itself goes in several, guidance included.

Progressive distillation (Salimans and Ho 2022, §3) of a guided model (Meng et al. 2023, §3.1), straight to the last number
of steps. A step of `ddim_trailing` then lands where the model's own shorter steps do, and needs one prediction, not two.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from stillmotion.sampling import Diffusion
from stillmotion.seeding import generator
from stillmotion.training.loop import Part
from stillmotion.training.objectives import LatentBatch

Latents = Float[Tensor, "batch channels frames height width"]
Text = Float[Tensor, "batch tokens features"]
_CLEAN = -1
"""The timestep after the last one: no noise is left."""


@dataclass
class FewStepsObjective:
    """The error of one long step beside the several short ones that the model itself takes over the same noise levels."""

    module: nn.Module
    """Holds what is trained."""
    denoiser: Callable[[Latents, Int[Tensor, "batch"], Text], Latents]
    """Noisy clips, their timesteps and their text in, the model's prediction out: a `Denoiser`, say."""
    teaching: Callable[[], AbstractContextManager[object]]
    """Within it the denoiser is the model without what is trained."""
    diffusion: Diffusion
    batch: Callable[[int], LatentBatch]
    empty: Float[Tensor, "1 tokens features"]
    """Text features of the empty caption, which guidance goes away from."""
    seed: int
    num_steps: int = 4
    """Long steps from noise to clip."""
    short_steps: int = 3
    """Short steps within each."""
    guidance_scale: float = 7.5

    def losses(self, step: int) -> Iterator[Part]:
        """Yield the mean squared error of the prediction at the long step whose turn it is."""
        batch = self.batch(step)
        noise = torch.randn(batch.latents.shape, generator=generator(self.seed, "few steps", step)).to(batch.latents)
        times = self.timesteps(step % self.num_steps)
        start = torch.full((len(noise),), times[0], device=noise.device)
        noisy = self.diffusion.add_noise(batch.latents, noise, start)
        with torch.no_grad(), self.teaching():
            goal = noisy
            for here, there in itertools.pairwise(times):
                goal = self._moved(goal, self._guided(goal, here, batch.text), here, there)
        target = self.aimed(noisy, goal, times[0], times[-1])
        yield Part(F.mse_loss(self.denoiser(noisy, start, batch.text), target))

    def timesteps(self, number: int) -> list[int]:
        """Return the timesteps of the short steps within a long one, by its number from 0, its own two ends included."""
        most = len(self.diffusion.alphas_cumprod)
        length = most / self.num_steps
        first = most - number * length
        return [round(first - part * length / self.short_steps) - 1 for part in range(self.short_steps + 1)]

    def aimed(self, noisy: Latents, goal: Latents, here: int, there: int) -> Latents:
        """Return the prediction with which one step of DDIM from `here` to `there` ends at `goal`.

        Such a step is α″ x + σ″ ε with x the clean latents and ε the noise that the prediction stands for; the noise is
        (z − α x) / σ, so x = (goal − σ″/σ z) / (α″ − σ″/σ α) (Salimans and Ho 2022, Algorithm 2).
        """
        signal, spread = self._shares(here)
        signal_then, spread_then = self._shares(there)
        ratio = spread_then / spread
        clean = (goal - ratio * noisy) / (signal_then - ratio * signal)
        if self.diffusion.prediction_type == "epsilon":
            return (noisy - signal * clean) / spread
        return (signal * noisy - clean) / spread

    def _moved(self, noisy: Latents, predicted: Latents, here: int, there: int) -> Latents:
        """Return where one step of DDIM leads (Song et al. 2021, Eq. 12, σ = 0).

        Not diffusers' scheduler: where the steps do not divide the timesteps, its steps end beside those that it takes next.
        """
        signal, spread = self._shares(here)
        timesteps = torch.full((len(noisy),), here, device=noisy.device)
        clean = self.diffusion.clean(noisy, predicted, timesteps)
        signal_then, spread_then = self._shares(there)
        return signal_then * clean + spread_then * (noisy - signal * clean) / spread

    def _guided(self, noisy: Latents, here: int, text: Text) -> Latents:
        both = torch.cat([self.empty.expand_as(text), text])
        timesteps = torch.full((2 * len(noisy),), here, device=noisy.device)
        without, told = self.denoiser(torch.cat([noisy, noisy]), timesteps, both).chunk(2)
        return without + self.guidance_scale * (told - without)

    def _shares(self, timestep: int) -> tuple[float, float]:
        """Return √ᾱ and √(1 − ᾱ)."""
        kept = 1.0 if timestep == _CLEAN else float(self.diffusion.alphas_cumprod[timestep])
        return kept**0.5, (1 - kept) ** 0.5
