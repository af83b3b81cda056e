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
    """How errors are weighed, which timesteps are drawn, and what noise is added."""

    snr_gamma: float | None = None
    timestep_bias: float = 1.0
    noise_offset: float = 0.0
    appearance_debias: float = 0.0

    def noise(self, latents: Latents, chance: torch.Generator) -> Latents:
        """Return unit noise, independent in every frame, with one random level per clip and channel if asked."""
        drawn = torch.randn(latents.shape, generator=chance)
        if self.noise_offset:
            drawn = drawn + self.noise_offset * torch.randn((*latents.shape[:2], 1, 1, 1), generator=chance)
        return drawn

    def biased(self, places: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """Return uniform places between no noise, 0, and all noise, 1, moved so that half lie above 1 − 2^(−bias).

        What diffusers' training scripts call the bias strategy "later", without its step.
        """
        return places if self.timestep_bias == 1 else 1 - (1 - places) ** self.timestep_bias

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


def shared_motion(predicted: Latents, true: Latents) -> float:
    """Return how far a prediction moves as the clips do: the cosine between both changes from frame to frame, at most 1.

    0 where the prediction stands still, or changes without regard to the clips.
    """
    ours, theirs = (clip.float().diff(dim=2).flatten() for clip in (predicted, true))
    return float(torch.cosine_similarity(ours, theirs, dim=0))


@dataclass(frozen=True, kw_only=True)
class Validation:
    """How well fixed clips are denoised."""

    loss: float
    """Mean squared error over all timesteps."""
    motion: float | None
    """`shared_motion` over the noisier half of them, where motion is made and not copied; None of single frames."""


@dataclass(frozen=True)
class _Denoised:
    """A batch, noised and looked at by the model."""

    latents: Latents
    noisy: Latents
    predicted: Latents
    target: Latents
    timesteps: Int[Tensor, "batch"]


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
        """Yield the step's loss by micro-batches; it is the mean over the whole batch, however that is cut.

        Clips of several sizes (buckets) are computed with those of their own.
        """
        timesteps = self._timesteps(step)
        waiting: dict[torch.Size, list[tuple[int, TrainingClip]]] = {}
        for slot in self.world.slots(self.batch_size):
            clip = self.fetch(step * self.batch_size + slot)
            alike = waiting.setdefault(clip.latents.shape, [])
            alike.append((slot, clip))
            if len(alike) == self.micro_batch_size:
                yield self._part(step, waiting.pop(clip.latents.shape), timesteps)
        for alike in waiting.values():
            yield self._part(step, alike, timesteps)

    @torch.no_grad()
    def validate(self, clips: Sequence[TrainingClip]) -> Validation:
        """Return how well those clips are denoised, each at eight timesteps with noise of its own."""
        errors, motions = [], []
        most = len(self.diffusion.alphas_cumprod)
        for index, clip in enumerate(clips):
            for part in range(NUM_VALIDATION_TIMESTEPS):
                timestep = torch.tensor([int((part + 0.5) * most / NUM_VALIDATION_TIMESTEPS)])
                chance = generator(self.seed, f"validation noise {part}", index)
                done = self._denoised([clip], torch.randn((1, *clip.latents.shape), generator=chance), timestep)
                errors.append(float(Weighing().loss(done.predicted, done.target, done.timesteps, self.diffusion)))
                if part >= NUM_VALIDATION_TIMESTEPS // 2 and clip.latents.shape[1] > 1:
                    clean = self.diffusion.clean(done.noisy, done.predicted.float(), done.timesteps)
                    motions.append(shared_motion(clean, done.latents))
        return Validation(loss=sum(errors) / len(errors), motion=sum(motions) / len(motions) if motions else None)

    def _part(self, step: int, slots: Sequence[tuple[int, TrainingClip]], timesteps: Int[Tensor, "batch"]) -> Part:
        """Return the share of the step's loss that those slots of its batch have, clips of one size."""
        noise = [
            self.weighing.noise(clip.latents.unsqueeze(0), generator(self.seed, "noise", step * self.batch_size + slot))
            for slot, clip in slots
        ]
        clips = [clip for _, clip in slots]
        done = self._denoised(clips, torch.cat(noise), timesteps[[slot for slot, _ in slots]])
        each = self.weighing.loss(done.predicted, done.target, done.timesteps, self.diffusion)
        weights = torch.tensor([clip.weight for clip in clips], device=each.device)
        return Part((each * weights).sum() / self.batch_size, keys=tuple(clip.key for clip in clips))

    def _denoised(self, batch: Sequence[TrainingClip], noise: Latents, timesteps: Int[Tensor, "batch"]) -> _Denoised:
        device = self.denoiser.unet.device
        latents, noise = torch.stack([clip.latents for clip in batch]).to(device), noise.to(device)
        timesteps = timesteps.to(device)
        noisy = self.diffusion.add_noise(latents, noise, timesteps)
        with self.autocast():
            predicted = self.denoiser(noisy, timesteps, self.texts([clip.caption for clip in batch]))
        target = self.diffusion.target(latents, noise, timesteps)
        return _Denoised(latents, noisy, predicted, target, timesteps)

    def _timesteps(self, step: int) -> Int[Tensor, "batch"]:
        """Return a timestep for every slot of the batch, one from each of as many parts that are equally likely."""
        chance = generator(self.seed, "timesteps", step)
        parts = torch.randperm(self.batch_size, generator=chance) + torch.rand(self.batch_size, generator=chance)
        most = len(self.diffusion.alphas_cumprod)
        places = self.weighing.biased(parts / self.batch_size)
        return (places * most).long().clamp(max=most - 1)
