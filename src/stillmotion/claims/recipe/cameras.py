"""The MotionLoRAs of the eight camera motions (paper §4.3), trained as everyone trains theirs: `data prepare`, `train`."""

from collections.abc import Iterator
from pathlib import Path

from stillmotion.claims.recipe.config import RecipeConfig
from stillmotion.claims.recipe.jobs import latents_of, trained, usual
from stillmotion.toyworld import brought_file
from stillmotion.training import TrainConfig
from stillmotion.training.loop import StepDone

RANK = 8
CLIPS_PER_STEP = 1


def train_camera(config: RecipeConfig, motion: str) -> Iterator[StepDone]:
    """Train the MotionLoRA of one camera motion, by its name, over the recipe's motion module."""
    weights, folder = Path(config.folder) / "weights", Path(config.folder) / "cameras"
    job = TrainConfig(
        stage="motion_lora",
        data=latents_of(config, f"toyworld:{config.camera_clips}:{motion}", folder / f"{motion}-latents"),
        output_dir=folder / motion,
        motion=str(weights / "motion" / "v3_toyworld_mm.safetensors"),
        rank=RANK,
        num_steps=config.camera_steps,
        batch_size=CLIPS_PER_STEP,
        optimizer="muon",
        muon_rate=config.camera_rate,
        dialects=("stillmotion",),
        **usual(config),
    )
    yield from trained(job, brought_file("motion_loras", motion, weights))
