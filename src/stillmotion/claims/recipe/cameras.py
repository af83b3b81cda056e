"""The MotionLoRAs of the eight camera motions (paper §4.3), trained as everyone trains theirs: `data prepare`, `train`."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from stillmotion.claims.recipe.config import RecipeConfig
from stillmotion.toyworld import models, motion_lora_file
from stillmotion.training import TrainConfig, Trained, training
from stillmotion.training.drawn import SLOWER
from stillmotion.training.events import Saved
from stillmotion.training.loop import StepDone
from stillmotion.training.preparing import PrepareConfig, preparing

RANK = 16
CLIPS_PER_STEP = 2


def train_camera(config: RecipeConfig, motion: str) -> Iterator[StepDone]:
    """Train the MotionLoRA of one camera motion, by its name, over the recipe's motion module."""
    weights, folder = Path(config.folder) / "weights", Path(config.folder) / "cameras"
    side, cache, run = models.PICTURE_SIZE, folder / f"{motion}-latents", folder / motion
    clips = f"toyworld:{config.camera_clips}:{motion}"
    prepared = PrepareConfig(
        source=clips, out=cache, model=str(weights), width=side, height=side, keep_every=SLOWER, device=config.device
    )
    for _ in preparing(prepared):
        pass  # seconds, beside the training
    job = TrainConfig(
        stage="motion_lora",
        data=str(cache),
        output_dir=run,
        model=str(weights),
        motion=str(weights / "motion" / "v3_toyworld_mm.safetensors"),
        rank=RANK,
        num_steps=config.camera_steps,
        batch_size=CLIPS_PER_STEP,
        learning_rate=config.camera_rate,
        decay_from=0.5,
        dialects=("stillmotion",),
        seed=config.seed,
        device=config.device,
        licence="Apache-2.0",
    )
    for event in training(job):
        if isinstance(event, Trained):
            yield StepDone(
                step=event.step, num_steps=event.num_steps, loss=event.loss, seconds=event.seconds, figures={}
            )
        elif isinstance(event, Saved):
            final = motion_lora_file(motion, weights)
            final.parent.mkdir(exist_ok=True)
            shutil.copyfile(event.files[0], final)
