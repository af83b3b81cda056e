"""Personal models over the base, made as everyone makes theirs, by `personalize`: a style, and a friend of one's own."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image

from stillmotion.claims.recipe.caches import to_bytes
from stillmotion.claims.recipe.config import RecipeConfig
from stillmotion.claims.recipe.jobs import personalised, usual
from stillmotion.seeding import generator
from stillmotion.toyworld import brought_file
from stillmotion.toyworld.choreography import CLIP_FRAMES
from stillmotion.toyworld.language import Scene, draw_scene
from stillmotion.toyworld.world import draw_clips
from stillmotion.training.loop import StepDone
from stillmotion.training.personalization import PersonalizeConfig

PAL = Scene(shape="star", colour="purple")
"""Whom the word <pal> stands for."""

WORD, NUM_VECTORS, NUM_PAL_PICTURES = "<pal>", 2, 24
STYLE_RANK = 8


def train_style(config: RecipeConfig, style: str) -> Iterator[StepDone]:
    """Teach the base a personal style that it never saw, as a LoRA."""
    weights = Path(config.folder) / "weights"
    job = PersonalizeConfig(
        method="lora",
        layers="transformer",
        rank=STYLE_RANK,
        pictures=_pictures_in(style, Path(config.folder) / "personal" / f"{style}-pictures", config),
        output_dir=Path(config.folder) / "personal" / style,
        num_steps=config.style_steps,
        learning_rate=config.style_rate,
        batch_size=8,
        caption_dropout=0.1,
        dialects=("diffusers",),
        **usual(config),
    )
    yield from personalised(job, brought_file("loras", style, weights))


def train_word(config: RecipeConfig) -> Iterator[StepDone]:
    """Teach the text encoder a new word for one object, by textual inversion on some pictures of it."""
    weights, folder = Path(config.folder) / "weights", Path(config.folder) / "personal"
    job = PersonalizeConfig(
        method="textual_inversion",
        pictures=_pictures_of_pal(folder / "pal-pictures", config),
        token=WORD,
        num_vectors=NUM_VECTORS,
        initial_words="red ball",
        output_dir=folder / "pal",
        num_steps=config.word_steps,
        learning_rate=config.word_rate,
        batch_size=8,
        dialects=("diffusers",),
        **usual(config),
    )
    yield from personalised(job, brought_file("embeddings", "pal", weights))


def _pictures_of_pal(folder: Path, config: RecipeConfig) -> str:
    around = [draw_scene(generator(config.seed, "pal", index)) for index in range(NUM_PAL_PICTURES)]
    scenes = [dataclasses.replace(scene, shape=PAL.shape, colour=PAL.colour) for scene in around]
    said = [scene.caption.replace(f"{PAL.colour} {PAL.shape}", WORD) for scene in scenes]
    return _drawn(folder, scenes, said, config.seed)


def _pictures_in(style: str, folder: Path, config: RecipeConfig) -> str:
    """Draw pictures in a style, whose captions do not say so: as of most style LoRAs, it is in all that the model draws.

    The base's text encoder never read a caption that begins with a style, and would understand little of the rest.
    """
    plain = [draw_scene(generator(config.seed, "styled", index)) for index in range(config.style_pictures)]
    scenes = [dataclasses.replace(scene, style=style) for scene in plain]
    return _drawn(folder, scenes, [scene.caption for scene in plain], config.seed)


def _drawn(folder: Path, scenes: Sequence[Scene], said: Sequence[str], seed: int) -> str:
    """Draw a moment of each scene, each with its caption beside it; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, (scene, caption) in enumerate(zip(scenes, said, strict=True)):
        moment = torch.randint(CLIP_FRAMES, (1,), generator=generator(seed, "personal moment", index)).float()
        drawn = draw_clips([scene], seed=seed, indices=[index], frames=moment).pixels[0, :, 0]
        Image.fromarray(to_bytes(drawn).permute(1, 2, 0).numpy()).save(folder / f"{index:03}.png")
        (folder / f"{index:03}.txt").write_text(caption + "\n", encoding="utf-8")
    return str(folder)


def train_whole(config: RecipeConfig, style: str) -> Iterator[StepDone]:
    """Teach the base a personal style by DreamBooth, as a model folder of its own; too large to be among the weights."""
    job = PersonalizeConfig(
        method="dreambooth",
        pictures=_pictures_in(style, Path(config.folder) / "personal" / f"{style}-pictures", config),
        output_dir=Path(config.folder) / "personal" / f"{style}-dreambooth",
        num_steps=config.whole_steps,
        learning_rate=config.whole_rate,
        batch_size=8,
        caption_dropout=0.1,
        dialects=("diffusers",),
        **usual(config),
    )
    yield from personalised(job, whole_folder(config, style))


def whole_folder(config: RecipeConfig, style: str) -> Path:
    """Return where the DreamBooth of a style is kept, whether it is there or not."""
    return Path(config.folder) / "models" / style
