"""What the three stages minimise: the denoising error of clips that are a function of their global index."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stillmotion.sampling import Denoiser, Diffusion
from stillmotion.seeding import generator
from stillmotion.training.clips import TrainingClip
from stillmotion.training.loop import Part
from stillmotion.training.world import World

Latents = Float[Tensor, "batch channels frames height width"]
Text = Float[Tensor, "batch tokens features"]
NUM_VALIDATION_TIMESTEPS = 8


@dataclass(frozen=True, kw_only=True)
class Weighing:
    """How errors are weighed, and what noise is added."""

    snr_gamma: float | None = None
    noise_offset: float = 0.0
    appearance_debias: float = 0.0

    def noise(self, latents: Latents, chance: torch.Generator) -> Latents:
        """Return unit noise, independent in every frame, with one random level per clip and channel if asked."""
        drawn = torch.randn(latents.shape, generator=chance)
        if self.noise_offset:
            drawn = drawn + self.noise_offset * torch.randn((*latents.shape[:2], 1, 1, 1), generator=chance)
        return drawn

    def loss(
        self, predicted: Latents, target: Latents, timesteps: Int[Tensor, "batch"], diffusion: Diffusion
    ) -> Float[Tensor, "batch"]:
        """Return each clip's error: mean squared, weighed by its timestep, with what appearance cannot explain added."""
        error = (predicted - target).float().square().mean((1, 2, 3, 4))
        if self.appearance_debias:
            apart = appearance_debiased(predicted) - appearance_debiased(target)
            error = error + self.appearance_debias * apart.float().square().mean((1, 2, 3, 4))
        if self.snr_gamma is not None:
            error = error * diffusion.min_snr_weight(timesteps, self.snr_gamma)
        return error


def appearance_debiased(values: Latents) -> Latents:
    """Return √2 of each frame less the first, so that what all frames share, the look of the clip, weighs less.

    MotionDirector (Zhao et al. 2023), √(β² + 1) ε_i − β ε_anchor, with β = 1 and the first frame as anchor.
    """
    return 2**0.5 * values - values[:, :, :1]


@dataclass
class StageObjective:
    """Predicting the noise of clips: paper Eq. 2 on single frames, Eq. 7 on clips; one timestep per clip."""

    module: nn.Module
    """Holds what is trained."""
    denoiser: Denoiser
    diffusion: Diffusion
    fetch: Callable[[int], TrainingClip]
    """Returns a clip by its global index."""
    texts: Callable[[Sequence[str]], Text]
    seed: int
    batch_size: int
    micro_batch_size: int
    weighing: Weighing = field(default_factory=Weighing)
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    world: World = field(default_factory=World)

    def losses(self, step: int) -> Iterator[Part]:
        """Yield the step's loss by micro-batches; it is the mean over the whole batch, however that is cut."""
        mine, timesteps = self.world.slots(self.batch_size), self._timesteps(step)
        for start in range(0, len(mine), self.micro_batch_size):
            slots = mine[start : start + self.micro_batch_size]
            batch = [self.fetch(step * self.batch_size + slot) for slot in slots]
            noise = [
                self.weighing.noise(
                    clip.latents.unsqueeze(0), generator(self.seed, "noise", step * self.batch_size + slot)
                )
                for slot, clip in zip(slots, batch, strict=True)
            ]
            each = self._errors(batch, torch.cat(noise), timesteps[list(slots)])
            yield Part(each.sum() / self.batch_size, keys=tuple(clip.key for clip in batch))

    @torch.no_grad()
    def validate(self, clips: Sequence[TrainingClip]) -> float:
        """Return the plain mean squared error of those clips, each at eight timesteps with noise of its own."""
        total = 0.0
        most = len(self.diffusion.alphas_cumprod)
        for index, clip in enumerate(clips):
            for part in range(NUM_VALIDATION_TIMESTEPS):
                timestep = torch.tensor([int((part + 0.5) * most / NUM_VALIDATION_TIMESTEPS)])
                chance = generator(self.seed, f"validation noise {part}", index)
                noise = torch.randn((1, *clip.latents.shape), generator=chance)
                total += float(self._errors([clip], noise, timestep, Weighing()).sum())
        return total / (len(clips) * NUM_VALIDATION_TIMESTEPS)

    def _errors(
        self,
        batch: Sequence[TrainingClip],
        noise: Latents,
        timesteps: Int[Tensor, "batch"],
        weighing: Weighing | None = None,
    ) -> Float[Tensor, "batch"]:
        device = self.denoiser.unet.device
        latents, noise = torch.stack([clip.latents for clip in batch]).to(device), noise.to(device)
        timesteps = timesteps.to(device)
        noisy = self.diffusion.add_noise(latents, noise, timesteps)
        with self.autocast():
            predicted = self.denoiser(noisy, timesteps, self.texts([clip.caption for clip in batch]))
        target = self.diffusion.target(latents, noise, timesteps)
        return (weighing or self.weighing).loss(predicted, target, timesteps, self.diffusion)

    def _timesteps(self, step: int) -> Int[Tensor, "batch"]:
        """Return a uniform timestep for every slot of the batch, one from each of as many equal parts."""
        chance = generator(self.seed, "timesteps", step)
        parts = torch.randperm(self.batch_size, generator=chance) + torch.rand(self.batch_size, generator=chance)
        most = len(self.diffusion.alphas_cumprod)
        return (parts / self.batch_size * most).long().clamp(max=most - 1)
