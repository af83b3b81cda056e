"""The stages that dream: the base text-to-image model, and the motion module over it."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from stillmotion.claims.recipe.caches import (
    TextTable,
    captions,
    clip_cache,
    clip_scenes,
    encode,
    picture_cache,
    sample_latents,
    with_moved,
)
from stillmotion.claims.recipe.config import RecipeConfig
from stillmotion.motion import MotionModule, plug
from stillmotion.sampling import Denoiser, Diffusion
from stillmotion.seeding import generator
from stillmotion.shapes import unfold_frames
from stillmotion.toyworld import brought_file, models
from stillmotion.toyworld.choreography import CLIP_FRAMES
from stillmotion.training.loop import LoopConfig, StepDone, run
from stillmotion.training.objectives import DenoisingObjective, LatentBatch

PICTURES_PER_STEP = 32
OFTEN = {"spinning": 3.0, "bouncing": 2.0, "growing": 2.0}
"""How often stills of a motion are drawn: what spins, squashes or is small is learnt last."""
CLIPS_OFTEN = {"bouncing": 3.0, "spinning": 3.0}
"""How often clips of a motion are drawn: these turn back on themselves, and are learnt last."""
CLIPS_PER_STEP = 2  # more steps of fewer clips: a step's cost is its frames


def train_base(config: RecipeConfig) -> Iterator[StepDone]:
    """Train the text-to-image model on stills, its text encoder frozen (paper Eq. 2)."""
    torch.manual_seed(config.seed)
    weights, device = Path(config.folder) / "weights", config.device
    cache_path = Path(config.folder) / "picture-latents.safetensors"
    if not cache_path.exists():
        vae = AutoencoderKL.from_pretrained(weights / "vae").float().eval().to(device)
        save_file(encode(vae, picture_cache(config), device), cache_path)
    scenes = captions(config, config.num_pictures)
    shelf = with_moved(config, load_file(cache_path), scenes, OFTEN, stills=True)
    text = TextTable(weights, shelf.captions, device, shelf.unsaid)
    unet = models.make_unet().to(device)

    def batch(step: int) -> LatentBatch:
        chance = generator(config.seed, "base batch", step)
        rows = torch.multinomial(shelf.often, PICTURES_PER_STEP, replacement=True, generator=chance)
        return LatentBatch(sample_latents(shelf.posteriors, rows, chance, device).unsqueeze(2), text(rows, chance))

    schedule = models.make_noise_schedule()
    diffusion = Diffusion.from_config(dict(schedule.config))
    yield from run(
        DenoisingObjective(unet, Denoiser(unet), diffusion, batch, config.seed),
        config.base,
        Path(config.folder) / "base",
    )
    schedule.save_pretrained(weights / "scheduler")
    unet.half().save_pretrained(weights / "unet", max_shard_size="14MB")


def train_motion(config: RecipeConfig) -> Iterator[StepDone]:
    """Train a v3 motion module on clips, the base model frozen (paper Eq. 7)."""
    final = Path(config.folder) / "weights" / "motion" / "v3_toyworld_mm.safetensors"
    yield from _train_module(config, "transformer", config.motion, "motion", final)


def train_ablation(config: RecipeConfig, architecture: str) -> Iterator[StepDone]:
    """Train a motion module of an architecture, for a comparison: on the same clips, from the same seed, for as long."""
    final = brought_file("motion", architecture, Path(config.folder) / "weights")
    yield from _train_module(config, architecture, config.ablation, f"ablation-{architecture}", final)


def _train_module(
    config: RecipeConfig, architecture: str, loop: LoopConfig, run_name: str, final: Path
) -> Iterator[StepDone]:
    torch.manual_seed(config.seed)
    weights, device = Path(config.folder) / "weights", config.device
    shelf = with_moved(config, clip_cache(config), clip_scenes(config), CLIPS_OFTEN, stills=False)
    text = TextTable(weights, shelf.captions, device, shelf.unsaid)
    unet = UNet2DConditionModel.from_pretrained(weights / "unet").float().eval().requires_grad_(False).to(device)
    motion = MotionModule.from_variant(
        "v3",
        block_out_channels=unet.config.block_out_channels,
        layers_per_block=unet.config.layers_per_block,
        architecture=architecture,
    ).to(device)
    frames = torch.arange(CLIP_FRAMES)

    def batch(step: int) -> LatentBatch:
        chance = generator(config.seed, "motion batch", step)
        clips = torch.multinomial(shelf.often, CLIPS_PER_STEP, replacement=True, generator=chance)
        rows = (clips[:, None] * CLIP_FRAMES + frames).flatten()
        latents = unfold_frames(sample_latents(shelf.posteriors, rows, chance, device), CLIP_FRAMES)
        return LatentBatch(latents, text(clips, chance))

    diffusion = Diffusion.from_config(dict(models.make_noise_schedule().config))
    objective = DenoisingObjective(motion, Denoiser(unet), diffusion, batch, config.seed)
    with plug(unet, motion, CLIP_FRAMES):
        yield from run(objective, loop, Path(config.folder) / run_name)
    final.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.half().contiguous() for name, value in motion.state_dict().items()}
    about = {"kind": "motion_module", "variant": "v3", "geometry": asdict(motion.geometry)}
    save_file(tensors, final, {"stillmotion": json.dumps(about)})
