"""The stages in their order, and what makes a model folder of what they leave."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from stillmotion.claims.recipe.cameras import CAMERAS, FEWER, train_camera
from stillmotion.claims.recipe.config import RecipeConfig, StageStep
from stillmotion.claims.recipe.depth import train_depth
from stillmotion.claims.recipe.few_steps import NAME as FEW_STEP
from stillmotion.claims.recipe.few_steps import train_few_steps
from stillmotion.claims.recipe.gates import check_base, check_text
from stillmotion.claims.recipe.generation import train_ablation, train_base, train_motion
from stillmotion.claims.recipe.perception import train_clip, train_judge, train_text, train_vae
from stillmotion.claims.recipe.personal import train_style, train_word
from stillmotion.claims.recipe.stock import train_adapter, train_on_stock
from stillmotion.motion import ARCHITECTURES
from stillmotion.toyworld import brought_file, write_manifest
from stillmotion.training.loop import StepDone

# What is checked before a stage begins.
GATES: dict[str, Callable[[RecipeConfig], object]] = {"base": check_text, "motion": check_base}


Stage = Callable[[RecipeConfig], Iterator[StepDone]]


def stages(config: RecipeConfig) -> dict[str, tuple[Path, Stage]]:
    """Return the stages in order: the file that says a stage is done, and what makes it."""
    weights = Path(config.folder) / "weights"
    return {
        "vae": (weights / "vae" / "config.json", train_vae),
        "clip": (weights / "clip" / "config.json", train_clip),
        "text": (weights / "text_encoder" / "config.json", train_text),
        "base": (weights / "unet" / "config.json", train_base),
        "judge": (weights / "judge" / "model.safetensors", train_judge),
        "motion": (weights / "motion" / "v3_toyworld_mm.safetensors", train_motion),
        "depth": (brought_file("controls", "depth", weights) / "config.json", train_depth),
        FEW_STEP: (brought_file("domain_adapter", FEW_STEP, weights), train_few_steps),
        **{name: _job("motion_loras", name, weights, partial(train_camera, name=name)) for name in (*CAMERAS, *FEWER)},
        "neon": _job("loras", "neon", weights, partial(train_style, style="neon")),
        "pal": _job("embeddings", "pal", weights, train_word),
        "stock": _job("domain_adapter", "stock", weights, train_adapter),
        **{
            name: _job("motion_loras", name, weights, partial(train_on_stock, name=name, adapted=adapted))
            for name, adapted in (("stock-adapted", True), ("stock-alone", False))
        },
    }


def ablations(config: RecipeConfig) -> dict[str, tuple[Path, Stage]]:
    """Return the stages of comparisons alone, which are no part of the weights: they are as large as the motion module."""
    weights = Path(config.folder) / "weights"
    return {
        name: (brought_file("motion", name, weights), partial(train_ablation, architecture=name))
        for name in ARCHITECTURES
    }


def _job(field: str, name: str, weights: Path, train: Stage) -> tuple[Path, Stage]:
    """Return a stage that is an ordinary job over the whole pipeline which the stages before it leave."""

    def prepared(config: RecipeConfig) -> Iterator[StepDone]:
        finish(config)
        return train(config)

    return brought_file(field, name, weights), prepared


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
    """Run the stages that are not done, or the one that is named, ablations among them; yield every step.

    Raises `GateClosed` before a stage whose ground is not good enough, since what it would learn there is wasted.
    """
    every = stages(config) if only is None else stages(config) | ablations(config)
    for name, (mark, train) in every.items():
        if mark.exists() or only not in (None, name):
            continue
        if name in GATES:
            GATES[name](config)
        for done in train(config):
            yield StageStep(stage=name, done=done)
