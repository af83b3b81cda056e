"""The stages in their order, and what makes a model folder of what they leave."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from stillmotion.claims.recipe.cameras import train_camera
from stillmotion.claims.recipe.config import RecipeConfig, StageStep
from stillmotion.claims.recipe.gates import check_base, check_text
from stillmotion.claims.recipe.generation import train_base, train_motion
from stillmotion.claims.recipe.perception import train_clip, train_judge, train_text, train_vae
from stillmotion.data import CAMERA_MOTIONS
from stillmotion.toyworld import motion_lora_file, write_manifest
from stillmotion.training.loop import StepDone

# What is checked before a stage begins.
GATES: dict[str, Callable[[RecipeConfig], object]] = {"base": check_text, "motion": check_base}


def stages(config: RecipeConfig) -> dict[str, tuple[Path, Callable[[RecipeConfig], Iterator[StepDone]]]]:
    """Return the stages in order: the file that says a stage is done, and what makes it."""
    weights = Path(config.folder) / "weights"
    return {
        "vae": (weights / "vae" / "config.json", train_vae),
        "clip": (weights / "clip" / "config.json", train_clip),
        "text": (weights / "text_encoder" / "config.json", train_text),
        "base": (weights / "unet" / "config.json", train_base),
        "judge": (weights / "judge" / "model.safetensors", train_judge),
        "motion": (weights / "motion" / "v3_toyworld_mm.safetensors", train_motion),
        **{name: (motion_lora_file(name, weights), partial(_train_camera, motion=name)) for name in CAMERA_MOTIONS},
    }


def _train_camera(config: RecipeConfig, motion: str) -> Iterator[StepDone]:
    finish(config)  # what is trained over is a whole pipeline from here on
    return train_camera(config, motion)


def finish(config: RecipeConfig) -> Path:
    """Write what makes a diffusers pipeline of the parts, and the manifest; return the folder of the weights."""
    weights = Path(config.folder) / "weights"
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (weights / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    write_manifest(weights)
    return weights


def cook(config: RecipeConfig, *, only: str | None = None) -> Iterator[StageStep]:
    """Run the stages that are not done; yield every step.

    Raises `GateClosed` before a stage whose ground is not good enough, since what it would learn there is wasted.
    """
    for name, (mark, train) in stages(config).items():
        if mark.exists() or only not in (None, name):
            continue
        if name in GATES:
            GATES[name](config)
        for done in train(config):
            yield StageStep(stage=name, done=done)
