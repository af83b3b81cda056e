"""The stages that see and read: the autoencoder, the CLIP pair, the text encoder, the judge."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from jaxtyping import Bool, Float, Int
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from stillmotion.claims.recipe.caches import captions, from_bytes, picture_cache, shrink, to_bytes
from stillmotion.claims.recipe.config import RecipeConfig
from stillmotion.seeding import generator
from stillmotion.toyworld import models
from stillmotion.toyworld.judge import Judge
from stillmotion.toyworld.language import SHAPES, draw_scene
from stillmotion.toyworld.world import picture_truth
from stillmotion.training.loop import Part, StepDone, run
from stillmotion.training.objectives import Captioned, ClipObjective, VaeObjective


def train_vae(config: RecipeConfig) -> Iterator[StepDone]:
    """Train the autoencoder: on crops of 64 pixels, for the last quarter on whole pictures."""
    torch.manual_seed(config.seed)  # the one global draw: torch's layers initialise themselves from it
    vae = models.make_vae().to(config.device)
    pictures = picture_cache(config)
    whole_from = int(0.75 * config.vae.num_steps)

    def batch(step: int) -> Tensor:
        chance = generator(config.seed, "vae batch", step)
        rows = torch.randint(len(pictures), (6 if step >= whole_from else 16,), generator=chance)
        pixels = from_bytes(pictures[rows], config.device)
        if step < whole_from:
            top, left = torch.randint(65, (2,), generator=chance).tolist()
            pixels = pixels[..., top : top + 64, left : left + 64]
        return pixels

    yield from run(VaeObjective(vae, batch, config.seed), config.vae, Path(config.folder) / "vae")
    standardize_latents(vae.eval(), from_bytes(pictures[:256], config.device))
    vae.half().save_pretrained(Path(config.folder) / "weights" / "vae")


@torch.no_grad()
def standardize_latents(vae: AutoencoderKL, pixels: Float[Tensor, "images 3 height width"]) -> None:
    """Fold each latent channel's mean and spread into the VAE's own 1×1 convolutions.

    Afterwards latents times the scaling factor have mean 0 and variance 1, and the decoder undoes it.
    """
    means = torch.cat([vae.encode(chunk).latent_dist.mean for chunk in pixels.split(16)])
    mean = means.mean((0, 2, 3))
    spread = means.std((0, 2, 3)) * vae.config.scaling_factor
    into, out, channels = vae.quant_conv, vae.post_quant_conv, len(mean)
    into.weight[:channels] /= spread.view(-1, 1, 1, 1)
    into.bias[:channels] = (into.bias[:channels] - mean) / spread
    into.bias[channels:] -= 2 * spread.log()
    out.bias += out.weight[..., 0, 0] @ mean
    out.weight *= spread.view(1, -1, 1, 1)


def train_clip(config: RecipeConfig) -> Iterator[StepDone]:
    """Train the CLIP pair on stills and their captions."""
    torch.manual_seed(config.seed)
    weights = Path(config.folder) / "weights"
    tokenizer = models.make_tokenizer(weights / "tokenizer")
    clip = models.make_clip(tokenizer).to(config.device)
    pictures, scenes = picture_cache(config), captions(config, config.num_pictures)
    small = torch.cat([shrink(chunk) for chunk in pictures.split(512)])
    said = [scene.caption for scene in scenes]
    number = {caption: index for index, caption in enumerate(sorted(set(said)))}
    caption_of = torch.tensor([number[caption] for caption in said])
    tokens = tokenizer(sorted(number), padding="max_length", return_tensors="pt").input_ids

    def batch(step: int) -> Captioned:
        rows = torch.randint(len(pictures), (64,), generator=generator(config.seed, "clip batch", step))
        which = caption_of[rows]
        same = (which[:, None] == which[None]).float()
        pixels = from_bytes(small[rows], config.device)
        return Captioned(pixels, tokens[which].to(config.device), same.to(config.device))

    yield from run(ClipObjective(clip, batch), config.clip, Path(config.folder) / "clip")
    models.save_clip(clip.eval().half(), weights)


@dataclass
class ReadableWords:
    """Telling the shape words apart, and changing nothing else: what a fixed reading cannot see stays as it was.

    A contrastive pair keeps of a word what helps it to match pictures. At 64 pixels it learns colours and places long
    before shapes, and merges the words that it does not need; what is merged here no later stage can draw.
    """

    module: CLIPTextModel
    before: CLIPTextModel
    reading: Float[Tensor, "shapes width"]
    """Orthonormal rows, one per shape."""
    batch: Callable[
        [int], tuple[Int[Tensor, "captions length"], Int[Tensor, "captions"], Bool[Tensor, "captions length"]]
    ]
    """Tokens, which shape each caption names, and the places from that word on: no place before it can know."""

    def losses(self, step: int) -> Iterator[Part]:
        """Yield the cross-entropy of the reading at every place from the word on, with what else has changed."""
        tokens, shapes, after = self.batch(step)
        features = self.module(tokens).last_hidden_state
        with torch.no_grad():
            before = self.before(tokens).last_hidden_state
        drift = features - before
        unread = drift - (drift @ self.reading.T) @ self.reading
        told = (features @ self.reading.T)[after]
        named = shapes[:, None].expand_as(tokens)[after]
        right = float((told.argmax(1) == named).float().mean())
        yield Part(F.cross_entropy(told, named) + 2 * unread.square().mean(), {"right": right})


def train_text(config: RecipeConfig) -> Iterator[StepDone]:
    """Train the base model's text encoder: the CLIP pair's text tower, in which every shape word can be read."""
    torch.manual_seed(config.seed)
    weights = Path(config.folder) / "weights"
    tokenizer = CLIPTokenizer.from_pretrained(weights / "tokenizer")
    encoder = CLIPModel.from_pretrained(weights / "clip").text_model.float().to(config.device)
    before = copy.deepcopy(encoder).eval().requires_grad_(False)
    reading = torch.linalg.qr(torch.randn(models.TEXT_WIDTH, len(SHAPES))).Q.T.contiguous().to(config.device)
    word = torch.tensor([tokenizer(shape).input_ids[1] for shape in SHAPES])

    def batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
        scenes = [draw_scene(generator(config.seed, "text batch", 64 * step + index)) for index in range(64)]
        said = [scene.caption for scene in scenes]
        tokens = tokenizer(said, padding="max_length", return_tensors="pt").input_ids
        shapes = torch.tensor([SHAPES.index(scene.shape) for scene in scenes])
        after = (tokens == word[shapes][:, None]).int().cumsum(1).bool()
        return tokens.to(config.device), shapes.to(config.device), after.to(config.device)

    yield from run(ReadableWords(encoder, before, reading, batch), config.text, Path(config.folder) / "text")
    models.save_text_encoder(encoder.eval().half(), weights)


@dataclass
class JudgeObjective:
    """Reading right: cross-entropy of the classes, squared error of the measures."""

    module: Judge
    batch: Callable[[int], tuple[Tensor, dict[str, Tensor], Tensor]]  # pixels, classes, measures

    def losses(self, step: int) -> Iterator[Part]:
        """Yield the loss of the step's batch, and the share of right readings of each class."""
        pixels, classes, measures = self.batch(step)
        reading = self.module(pixels)
        wrong = [F.cross_entropy(reading.scores[name], labels) for name, labels in classes.items()]
        apart = (reading.measures - measures) * torch.tensor([10.0, 10.0, 4.0, 3.0, 3.0, 3.0]).to(measures)
        figures = {name: float((reading.best(name) == labels).float().mean()) for name, labels in classes.items()}
        yield Part(torch.stack(wrong).sum() + apart.square().mean(), figures)


def train_judge(config: RecipeConfig) -> Iterator[StepDone]:
    """Train the judge on drawn stills, roughened as generated ones are: through the VAE, blurred, with noise."""
    torch.manual_seed(config.seed)
    weights = Path(config.folder) / "weights"
    judge = Judge().to(config.device)
    pictures = picture_cache(config)
    truth = picture_truth(range(len(pictures)), seed=config.seed)
    vae = AutoencoderKL.from_pretrained(weights / "vae").float().eval().to(config.device)
    with torch.no_grad():
        chunks = [from_bytes(chunk, config.device) for chunk in pictures[: config.num_pictures // 12].split(16)]
        through = torch.cat([shrink(to_bytes(vae.decode(vae.encode(c).latent_dist.mean).sample).cpu()) for c in chunks])
    small = torch.cat([through, *(shrink(chunk) for chunk in pictures[len(through) :].split(512))])

    def batch(step: int) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        chance = generator(config.seed, "judge batch", step)
        half = (
            torch.randint(len(through), (32,), generator=chance),
            torch.randint(len(small), (32,), generator=chance),
        )
        rows = torch.cat(half)
        pixels = roughen(from_bytes(small[rows], config.device), chance)
        labels = {name: values[rows].to(config.device) for name, values in truth.classes.items()}
        return pixels, labels, truth.measures[rows].to(config.device)

    yield from run(JudgeObjective(judge, batch), config.judge, Path(config.folder) / "judge")
    (weights / "judge").mkdir(parents=True, exist_ok=True)
    save_file({k: v.half() for k, v in judge.state_dict().items()}, weights / "judge" / "model.safetensors")


def roughen(pixels: Float[Tensor, "images 3 h w"], chance: torch.Generator) -> Float[Tensor, "images 3 h w"]:
    """Return the pictures blurred, tinted and speckled by random amounts."""
    amount = torch.rand(len(pixels), 4, 1, 1, 1, generator=chance).to(pixels)
    blurred = F.avg_pool2d(F.pad(pixels, (2, 2, 2, 2), mode="reflect"), 5, 1)
    pixels = torch.lerp(pixels, blurred, amount[:, 0] ** 2)
    speckle = torch.randn(pixels.shape, generator=chance).to(pixels)
    tint = torch.randn(len(pixels), 3, 1, 1, generator=chance).to(pixels)
    return pixels * (0.8 + 0.4 * amount[:, 1]) + 0.15 * amount[:, 2] * speckle + 0.06 * tint
