"""Personal models over the base, made as everyone makes theirs, by `personalize`: a style, and a friend of one's own."""

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from stillmotion.claims.recipe.caches import to_bytes
from stillmotion.claims.recipe.config import RecipeConfig
from stillmotion.claims.recipe.jobs import LICENCE, personalised
from stillmotion.seeding import generator
from stillmotion.toyworld import brought_file
from stillmotion.toyworld.language import Scene, draw_scene
from stillmotion.toyworld.world import draw_clips
from stillmotion.training.loop import StepDone
from stillmotion.training.personalization import PersonalizeConfig

PAL = Scene(shape="star", colour="purple")
"""Whom the word <pal> stands for."""

WORD, NUM_VECTORS, NUM_PAL_PICTURES = "<pal>", 2, 24


def train_style(config: RecipeConfig, style: str) -> Iterator[StepDone]:
    """Teach the base a personal style that it never saw, as a LoRA."""
    weights = Path(config.folder) / "weights"
    job = PersonalizeConfig(
        method="lora",
        layers="transformer",
        pictures=f"toyworld:{config.style_pictures}:{style}",
        output_dir=Path(config.folder) / "personal" / style,
        model=str(weights),
        num_steps=config.style_steps,
        learning_rate=config.style_rate,
        batch_size=8,
        caption_dropout=0.1,
        decay_from=0.5,
        dialects=("diffusers",),
        seed=config.seed,
        device=config.device,
        licence=LICENCE,
    )
    yield from personalised(job, brought_file("loras", style, weights))


def train_word(config: RecipeConfig) -> Iterator[StepDone]:
    """Teach the text encoder a new word for one object, by textual inversion on some pictures of it."""
    weights, folder = Path(config.folder) / "weights", Path(config.folder) / "personal"
    job = PersonalizeConfig(
        method="textual_inversion",
        pictures=str(_pictures_of_pal(folder / "pal-pictures", config.seed)),
        token=WORD,
        num_vectors=NUM_VECTORS,
        initial_words="red ball",
        output_dir=folder / "pal",
        model=str(weights),
        num_steps=config.word_steps,
        learning_rate=config.word_rate,
        batch_size=8,
        decay_from=0.5,
        dialects=("diffusers",),
        seed=config.seed,
        device=config.device,
        licence=LICENCE,
    )
    yield from personalised(job, brought_file("embeddings", "pal", weights))


def _pictures_of_pal(folder: Path, seed: int) -> Path:
    """Draw the pictures, each with its caption beside it; what stands where the word does is never said."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(NUM_PAL_PICTURES):
        around = draw_scene(generator(seed, "pal", index))
        scene = Scene(shape=PAL.shape, colour=PAL.colour, motion=around.motion, place=around.place)
        moment = generator(seed, "pal moment", index).initial_seed() % 16
        drawn = draw_clips([scene], seed=seed, indices=[index]).pixels[0, :, moment]
        Image.fromarray(to_bytes(drawn).permute(1, 2, 0).numpy()).save(folder / f"{index:02}.png")
        caption = scene.caption.replace(f"{PAL.colour} {PAL.shape}", WORD)
        (folder / f"{index:02}.txt").write_text(caption + "\n", encoding="utf-8")
    return folder


def train_whole(config: RecipeConfig, style: str) -> Iterator[StepDone]:
    """Teach the base a personal style by DreamBooth, as a model folder of its own; too large to be among the weights."""
    job = PersonalizeConfig(
        method="dreambooth",
        pictures=f"toyworld:{config.style_pictures}:{style}",
        output_dir=Path(config.folder) / "personal" / f"{style}-dreambooth",
        model=str(Path(config.folder) / "weights"),
        num_steps=config.whole_steps,
        learning_rate=config.whole_rate,
        batch_size=8,
        caption_dropout=0.1,
        decay_from=0.5,
        dialects=("diffusers",),
        seed=config.seed,
        device=config.device,
        licence=LICENCE,
    )
    yield from personalised(job, whole_folder(config, style))


def whole_folder(config: RecipeConfig, style: str) -> Path:
    """Return where the DreamBooth of a style is kept, whether it is there or not."""
    return Path(config.folder) / "models" / style
