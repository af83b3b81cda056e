"""Stages of the recipe that are ordinary jobs: what anyone does by `data prepare`, `train` and `personalize`."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stillmotion.claims.recipe.config import RecipeConfig
from stillmotion.toyworld import models
from stillmotion.training import TrainConfig, Trained, training
from stillmotion.training.drawn import SLOWER
from stillmotion.training.events import Saved, TrainEvent
from stillmotion.training.loop import StepDone
from stillmotion.training.personalization import PersonalizeConfig, personalizing
from stillmotion.training.preparing import PrepareConfig, preparing


def usual(config: RecipeConfig) -> dict[str, Any]:
    """Return the fields that all these jobs share: over the recipe's own model, the rate falling from half of the steps."""
    return {
        "model": str(Path(config.folder) / "weights"),
        "decay_from": 0.5,
        "seed": config.seed,
        "device": config.device,
        "licence": "Apache-2.0",
    }


def latents_of(config: RecipeConfig, clips: str, folder: Path) -> str:
    """Draw and encode clips, "toyworld:32:zoom-in", into a cache; return its folder. What is there is not made again."""
    side = models.PICTURE_SIZE
    prepared = PrepareConfig(
        source=clips,
        out=folder,
        model=str(Path(config.folder) / "weights"),
        width=side,
        height=side,
        keep_every=SLOWER,
        device=config.device,
    )
    for _ in preparing(prepared):
        pass  # seconds, beside the training
    return str(folder)


def trained(job: TrainConfig, final: Path) -> Iterator[StepDone]:
    """Yield the steps of a training, and put its first file where the weights keep it."""
    yield from _kept(training(job), final)


def personalised(job: PersonalizeConfig, final: Path) -> Iterator[StepDone]:
    """Yield the steps of a personalisation, and put its first file or folder where the weights keep it."""
    yield from _kept(personalizing(job), final)


def _kept(events: Iterator[TrainEvent], final: Path) -> Iterator[StepDone]:
    for event in events:
        if isinstance(event, Trained):
            yield StepDone(
                step=event.step, num_steps=event.num_steps, loss=event.loss, seconds=event.seconds, figures={}
            )
        elif isinstance(event, Saved):
            final.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if event.files[0].is_dir() else shutil.copyfile
            copy(event.files[0], final)
