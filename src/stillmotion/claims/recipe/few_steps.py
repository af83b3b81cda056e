"""Clips in four steps: a LoRA of the image model and one of the motion module, distilled together as AnimateLCM's pair is."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from stillmotion.checkpoints import load, save
from stillmotion.claims.recipe.caches import TextTable, clip_cache, clip_scenes, sample_latents
from stillmotion.claims.recipe.config import RecipeConfig
from stillmotion.motion import DomainAdapter, MotionLora, MotionModule, plug
from stillmotion.motion.lora import AppliedLora, new_adapter
from stillmotion.sampling import Denoiser, Diffusion
from stillmotion.seeding import generator
from stillmotion.shapes import unfold_frames
from stillmotion.toyworld import brought_file, models
from stillmotion.toyworld.choreography import CLIP_FRAMES
from stillmotion.training.distillation import FewStepsObjective
from stillmotion.training.loop import StepDone, run
from stillmotion.training.objectives import LatentBatch
from stillmotion.training.stages import STAGES
from stillmotion.training.subject import Factors

NAME = "few-step"
RANK = 8
CLIPS_PER_STEP = 1
_KINDS: dict[str, tuple[str, type[MotionLora] | type[DomainAdapter]]] = {
    "motion_lora": ("motion_loras", MotionLora),
    "domain_adapter": ("domain_adapter", DomainAdapter),
}


def train_few_steps(config: RecipeConfig) -> Iterator[StepDone]:
    """Distil the recipe's own models to few steps, guidance included."""
    weights, device = Path(config.folder) / "weights", config.device
    cache, scenes = clip_cache(config), clip_scenes(config)
    text = TextTable(weights, [scene.caption for scene in scenes], device)
    unet = UNet2DConditionModel.from_pretrained(weights / "unet").float().eval().requires_grad_(False).to(device)
    motion = load(weights / "motion" / "v3_toyworld_mm.safetensors", expect=MotionModule).float().to(device)
    motion.requires_grad_(requires_grad=False)
    frames = torch.arange(CLIP_FRAMES)

    def batch(step: int) -> LatentBatch:
        chance = generator(config.seed, "few-step batch", step)
        clips = torch.randint(len(scenes), (CLIPS_PER_STEP,), generator=chance)
        rows = (clips[:, None] * CLIP_FRAMES + frames).flatten()
        latents = unfold_frames(sample_latents(cache, rows, chance, device), CLIP_FRAMES)
        return LatentBatch(latents, text.features[text.rows[clips]])

    with ExitStack() as stack:
        stack.enter_context(plug(unet, motion, CLIP_FRAMES))
        applied, learners = [], nn.ModuleDict()
        for stage, (_, kind) in _KINDS.items():
            fresh = new_adapter(
                kind, unet, STAGES[stage].paths(unet), RANK, generator(config.seed, f"few-step {stage}")
            )
            lora = AppliedLora(unet, fresh, strength=1.0)
            stack.callback(lora.remove)
            applied.append(lora)
            learners[stage] = Factors(lora.parameters())
        learners.requires_grad_(requires_grad=True)

        @contextmanager
        def teaching() -> Iterator[None]:
            for lora in applied:
                lora.strength = 0.0
            try:
                yield
            finally:
                for lora in applied:
                    lora.strength = 1.0

        objective = FewStepsObjective(
            module=learners,
            denoiser=Denoiser(unet),
            teaching=teaching,
            diffusion=Diffusion.from_config(dict(models.make_noise_schedule().config)),
            batch=batch,
            empty=text.features[:1],
            seed=config.seed,
        )
        yield from run(objective, config.few_step, Path(config.folder) / NAME)
        for stage, (field, kind) in _KINDS.items():
            factors = learners[stage]
            assert isinstance(factors, Factors)
            path = brought_file(field, NAME, weights)
            path.parent.mkdir(parents=True, exist_ok=True)
            save(factors.half().adapter(kind), path, overwrite=True)
