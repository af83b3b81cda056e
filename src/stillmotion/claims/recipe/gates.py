"""What must hold before a stage begins. The motion module has no text input: all it knows of a caption passes through
the frozen base, so each motion word must be told apart by the text encoder, and be visible in a still.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from stillmotion.claims.recipe.config import RecipeConfig
from stillmotion.errors import StillmotionError
from stillmotion.motion import VARIANTS
from stillmotion.sampling import Denoiser, Guidance, make_sampler, sample
from stillmotion.seeding import frame_noise, generator
from stillmotion.toyworld import load_judge, models
from stillmotion.toyworld.judge import Reading
from stillmotion.toyworld.language import COLOURS, MOTIONS, PLACES, SHAPES, Scene, draw_scene

LEAST_WORD_DIFFERENCE = 0.3  # of the features' spread, between two words at their own place
LEAST_CUE = 0.9  # share of stills whose cue says the caption's motion
LEAST_SHAPE = 0.8  # share of stills that show the caption's shape
GATE_STILLS = 60
LATENT_SHAPE = (models.LATENT_CHANNELS, models.PICTURE_SIZE // 8, models.PICTURE_SIZE // 8)


class GateClosed(StillmotionError):
    """A stage's ground is not good enough to build on."""


@dataclass(frozen=True)
class StillScore:
    """The share of stills that show what their captions say."""

    shape: float
    colour: float
    place: float
    motion: float


def check_text(config: RecipeConfig) -> dict[str, float]:
    """Return how far apart the text encoder holds words; raise `GateClosed` if it has merged any.

    The least of all pairs, for shapes and for the two sides: the difference of the features at the word itself.
    """
    weights = Path(config.folder) / "weights"
    tokenizer = CLIPTokenizer.from_pretrained(weights / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(weights / "text_encoder").float().eval()
    found = {
        "shapes": _least_apart(tokenizer, encoder, [f"a red {shape} rolling left on green grass" for shape in SHAPES]),
        "sides": _least_apart(
            tokenizer, encoder, [f"a red ball rolling {side} on green grass" for side in ("left", "right")]
        ),
    }
    for words, difference in found.items():
        if difference < LEAST_WORD_DIFFERENCE:
            raise GateClosed(
                f"The text encoder tells {words} apart by {difference:.2f} of its spread, expected at least "
                f"{LEAST_WORD_DIFFERENCE}: train it longer, or more gently."
            )
    return found


@torch.no_grad()
def _least_apart(tokenizer: CLIPTokenizer, encoder: CLIPTextModel, said: list[str]) -> float:
    """Return the least difference of any two captions at the first word in which they differ, in the features' spread."""
    tokens = tokenizer(said, padding="max_length", return_tensors="pt").input_ids
    features = encoder(tokens).last_hidden_state
    apart = []
    for one, other in itertools.combinations(range(len(said)), 2):
        place = int((tokens[one] != tokens[other]).nonzero()[0])
        apart.append(float((features[one, place] - features[other, place]).square().mean().sqrt() / features.std()))
    return min(apart)


def check_base(config: RecipeConfig) -> StillScore:
    """Return what the judge reads off the base model's stills; raise `GateClosed` if cue or shape do not show."""
    score = score_stills(Path(config.folder) / "weights", config.device)
    for name, share, least in (("motion", score.motion, LEAST_CUE), ("shape", score.shape, LEAST_SHAPE)):
        if share < least:
            raise GateClosed(
                f"{share:.0%} of the base model's stills show their caption's {name}, expected {least:.0%}: train the base "
                f"longer (base.num_steps)."
            )
    return score


@torch.no_grad()
def score_stills(weights: Path, device: str = "cpu", count: int = GATE_STILLS) -> StillScore:
    """Return the shares of right stills over captions drawn at random, read by the judge."""
    scenes = [draw_scene(generator(1, "gate", index), motions=MOTIONS) for index in range(count)]
    reading = load_judge(weights).to(device)(sample_stills(weights, scenes, device))
    return _score(reading, scenes)


@torch.no_grad()
def sample_stills(weights: Path, scenes: list[Scene], device: str = "cpu") -> torch.Tensor:
    """Return one picture of the base model per scene, pixels in [-1, 1]."""
    tokenizer = CLIPTokenizer.from_pretrained(weights / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(weights / "text_encoder").float().eval().to(device)
    unet = UNet2DConditionModel.from_pretrained(weights / "unet").float().eval().to(device)
    vae = AutoencoderKL.from_pretrained(weights / "vae").float().eval().to(device)
    said = [scene.caption for scene in scenes]
    tokens = tokenizer([*said, ""], padding="max_length", return_tensors="pt").input_ids.to(device)
    *text, empty = encoder(tokens).last_hidden_state.split(1)
    schedule = VARIANTS["v3"].noise_schedule.scheduler_kwargs()
    sampler = make_sampler("ddim", schedule, "v_prediction")
    noise = torch.cat([frame_noise(index, range(1), LATENT_SHAPE) for index in range(len(said))]).to(device)
    steps = sample(
        Denoiser(unet),
        sampler,
        noise,
        Guidance(torch.cat(text), empty.expand(len(said), -1, -1), 5.0),
        num_inference_steps=20,
    )
    *_, last = steps
    latents = last.latents[:, :, 0] / vae.config.scaling_factor
    return torch.cat([vae.decode(chunk).sample for chunk in latents.split(8)]).clamp(-1, 1)


def _score(reading: Reading, scenes: list[Scene]) -> StillScore:
    words = {"shape": SHAPES, "colour": COLOURS, "place": PLACES, "motion": MOTIONS}

    def share(name: str) -> float:
        said = torch.tensor([words[name].index(str(getattr(scene, name))) for scene in scenes])
        return float((reading.best(name).cpu() == said).float().mean())

    return StillScore(**{name: share(name) for name in words})
