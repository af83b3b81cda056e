"""Opening the clips of a run: drawn, cached, or on disk."""

from stillmotion.data import ClipRecipe, LatentCache, check_flip, open_source, recipe_on_cache, vae_fingerprint
from stillmotion.t2i import T2I
from stillmotion.training.clips import Footage, from_cache, from_clips
from stillmotion.training.config import TrainConfig
from stillmotion.training.drawn import drawn_footage
from stillmotion.training.stages import Stage


def recipe_of(config: TrainConfig, stage: Stage) -> ClipRecipe:
    """Return how a run cuts its training clips; a stage that moves nothing takes single frames (paper §4.1)."""
    assert config.width is not None  # settled
    assert config.height is not None
    return ClipRecipe(
        num_frames=config.num_frames if stage.moves else 1,
        frame_stride=config.frame_stride,
        width=config.width,
        height=config.height,
        short_clips=config.short_clips,
        buckets=config.buckets,
        horizontal_flip=config.horizontal_flip,
    )


def footage_of(config: TrainConfig, t2i: T2I, recipe: ClipRecipe) -> tuple[Footage, ClipRecipe, tuple[str, ...]]:
    """Return the clips of a run, the recipe in their own frames, and what the user should know of them.

    Raises `FileError` where there is nothing to read, `MismatchError` for a cache of another VAE, `ConfigError` where
    mirrored clips would lie.
    """
    if drawn := drawn_footage(config.data, seed=config.seed, size=recipe.width):
        return from_clips(drawn, t2i, recipe), recipe, ()
    if LatentCache.is_one(config.data):
        cache = LatentCache.open(config.data)
        cache.require(vae=vae_fingerprint(t2i.vae.state_dict()), scaling_factor=t2i.vae.config.scaling_factor)
        return from_cache(cache), recipe_on_cache(recipe, cache.header), ()
    source = open_source(config.data, video_folder=config.video_folder)
    captions = [config.caption] if config.caption is not None else [source.item(i).caption for i in range(len(source))]
    check_flip(recipe, captions, directional=config.stage == "motion_lora")
    empty = sum(not caption.strip() for caption in captions)
    note = (f"{empty} of {len(captions)} clips have no caption; --caption gives one to all",) if empty else ()
    return from_clips(source, t2i, recipe), recipe, note
