"""A training step as ours does it: clips out of a latent cache, captions encoded once, our loop."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stillmotion.bench.models import make_vae
from stillmotion.bench.shape import TrainShape
from stillmotion.data import (
    CacheHeader,
    ClipRecipe,
    LatentCache,
    Prepared,
    Quarantine,
    fit,
    prepare,
    vae_fingerprint,
)
from stillmotion.motion import VARIANTS
from stillmotion.sampling import Denoiser, Diffusion
from stillmotion.t2i import T2I
from stillmotion.training.clips import TrainingClips, from_cache, texts_of
from stillmotion.training.denoising import StageObjective
from stillmotion.training.drawn import SLOWER, DrawnFootage
from stillmotion.training.loop import LoopConfig, StepDone, run

NOISE_SCHEDULE = VARIANTS["v3"].noise_schedule.scheduler_kwargs()
"""The noise schedule of both loops, in diffusers' words."""

_SEED = 0


def footage(shape: TrainShape) -> DrawnFootage:
    """Return the clips that both loops train on: one of the toyworld's for each place in the batch."""
    return DrawnFootage(shape.batch_size, seed=_SEED, size=shape.pixels)


def pixels_of(shape: TrainShape) -> Float[Tensor, "batch frames 3 height width"]:
    """Return the clips decoded, the frames that are cached, begun again where more are asked for."""
    drawn = footage(shape)
    places = [_cached_places(drawn, clip) for clip in range(len(drawn))]
    return torch.stack(
        [
            fit(drawn.frames(clip, [kept[i % len(kept)] for i in range(shape.num_frames)]), shape.pixels, shape.pixels)
            for clip, kept in enumerate(places)
        ]
    )


def fill_cache(shape: TrainShape, folder: Path) -> int:
    """Encode the clips into a latent cache at `folder`, as `data prepare` does; return how many frames that are."""
    vae, drawn = make_vae(shape.size), footage(shape)
    header = CacheHeader(
        vae=vae_fingerprint(vae.state_dict()),
        scaling_factor=vae.config.scaling_factor,
        width=shape.pixels,
        height=shape.pixels,
        dtype="float16",
        source=drawn.fingerprint(),
        keep_every=SLOWER,
    )

    def encode(images: Tensor) -> tuple[Tensor, Tensor]:
        posterior = vae.encode(images).latent_dist
        return posterior.mean, posterior.logvar

    events: Iterator[Prepared] = prepare(drawn, encode, folder, header)
    return sum(clip.num_frames for clip in events)


def cached_steps(
    shape: TrainShape, t2i: T2I, module: nn.Module, cache_folder: Path, folder: Path, num_steps: int
) -> Iterator[StepDone]:
    """Return our training loop over the cache, which does an optimizer step whenever it is asked for the next.

    `module` holds what is trained; the UNet of `t2i` has motion plugged in. No average of the weights is kept, since the
    other loop keeps none, and nothing is written to `folder` in the first `num_steps` steps.
    """
    cache = LatentCache.open(cache_folder)
    cache.require(vae=vae_fingerprint(t2i.vae.state_dict()))
    recipe = ClipRecipe(
        num_frames=shape.num_frames, frame_stride=1, width=shape.pixels, height=shape.pixels, short_clips="loop"
    )
    clips = TrainingClips(
        from_cache(cache),
        recipe,
        seed=_SEED,
        scaling_factor=t2i.vae.config.scaling_factor,
        quarantine=Quarantine(len(cache)),
    )
    dtype: torch.dtype = getattr(torch, shape.dtype)

    def autocast() -> AbstractContextManager[object]:
        return nullcontext() if dtype is torch.float32 else torch.autocast("cpu", dtype)

    objective = StageObjective(
        module=module,
        denoiser=Denoiser(t2i.unet),
        diffusion=Diffusion.from_config(NOISE_SCHEDULE),
        fetch=clips.__getitem__,
        texts=texts_of(t2i),
        seed=_SEED,
        batch_size=shape.batch_size,
        micro_batch_size=shape.batch_size,
        autocast=autocast,
    )
    config = LoopConfig(
        num_steps=num_steps + 1,  # the last step writes a checkpoint, and is never asked for
        learning_rate=1e-4,
        betas=(0.9, 0.999),
        weight_decay=1e-2,
        decay_from=1.0,
        checkpoint_every=num_steps + 1,
    )
    return run(objective, config, folder)


def _cached_places(drawn: DrawnFootage, clip: int) -> range:
    return range(0, drawn.num_frames(clip), SLOWER)
