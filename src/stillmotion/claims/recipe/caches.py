"""What the stages learn from, drawn and encoded once and kept on disk; batches are functions of the step alone."""

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from stillmotion.claims.recipe.config import RecipeConfig
from stillmotion.seeding import generator
from stillmotion.shapes import fold_frames
from stillmotion.toyworld import models
from stillmotion.toyworld.language import MOTIONS, Scene, draw_scene, shorten
from stillmotion.toyworld.world import draw_clips, draw_pictures


def picture_cache(config: RecipeConfig) -> UInt8[Tensor, "pictures 3 128 128"]:
    """Return the drawn stills as bytes, drawing them once."""
    path = Path(config.folder) / "pictures.safetensors"
    if not path.exists():
        chunks = []
        for start in range(0, config.num_pictures, 64):
            indices = range(start, min(start + 64, config.num_pictures))
            drawn = draw_pictures(indices, seed=config.seed, device=config.device)
            chunks.append(to_bytes(drawn.pixels[:, :, 0]).cpu())
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"pixels": torch.cat(chunks)}, path)
    return load_file(path)["pixels"]


def captions(config: RecipeConfig, count: int) -> list[Scene]:
    """Return what is said of the first `count` pictures: their scenes, sometimes with parts left out."""
    drawn = [draw_scene(generator(config.seed, "toyworld scene", index)) for index in range(count)]
    return [shorten(scene, generator(config.seed, "toyworld caption", i)) for i, scene in enumerate(drawn)]


def clip_cache(config: RecipeConfig) -> dict[str, Tensor]:
    """Return the drawn clips' latent posteriors, (clips·frames, 4, 16, 16), drawing and encoding them once."""
    path = Path(config.folder) / "clip-latents.safetensors"
    if not path.exists():
        vae = AutoencoderKL.from_pretrained(Path(config.folder) / "weights" / "vae").float().eval().to(config.device)
        scenes = clip_scenes(config)
        parts = []
        for start in range(0, config.num_clips, 4):
            indices = range(start, min(start + 4, config.num_clips))
            drawn = draw_clips(scenes[start : start + 4], seed=config.seed + 1, indices=indices, device=config.device)
            parts.append(encode(vae, to_bytes(fold_frames(drawn.pixels)), config.device))
        save_file({name: torch.cat([part[name] for part in parts]) for name in parts[0]}, path)
    return load_file(path)


def clip_scenes(config: RecipeConfig) -> list[Scene]:
    """Return the scenes of the motion module's clips: one in eleven stands still, the motions share the rest."""
    motions = (*MOTIONS, *MOTIONS, None)
    return [draw_scene(generator(config.seed, "clip scene", i), motions=motions) for i in range(config.num_clips)]


def to_bytes(pixels: Float[Tensor, "..."]) -> UInt8[Tensor, "..."]:
    """Return pixels in [-1, 1] as 0…255."""
    return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_bytes(pixels: UInt8[Tensor, "..."], device: str = "cpu") -> Float[Tensor, "..."]:
    """Return bytes as pixels in [-1, 1]."""
    return pixels.to(device).float() / 127.5 - 1


def shrink(pictures: UInt8[Tensor, "pictures 3 128 128"]) -> UInt8[Tensor, "pictures 3 64 64"]:
    """Return the pictures at half their size, as the CLIP pair and the judge take them."""
    return to_bytes(F.interpolate(from_bytes(pictures), (64, 64), mode="bilinear", antialias=True))


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: UInt8[Tensor, "pictures 3 h w"], device: str) -> dict[str, Tensor]:
    """Return the posterior of each picture's latents, mean and log-variance, in float16: an epoch samples anew."""
    posteriors = [vae.encode(from_bytes(chunk, device)).latent_dist for chunk in pictures.split(16)]
    mean, log_variance = ([getattr(p, name) for p in posteriors] for name in ("mean", "logvar"))
    return {
        "mean": torch.cat(mean).half().cpu().contiguous(),
        "log_variance": torch.cat(log_variance).half().cpu().contiguous(),
    }


def sample_latents(
    cache: dict[str, Tensor], rows: Tensor, chance: torch.Generator, device: str
) -> Float[Tensor, "..."]:
    """Return scaled latents drawn from the cached posteriors of `rows`."""
    mean, deviation = cache["mean"][rows].float(), (0.5 * cache["log_variance"][rows].float()).exp()
    drawn = mean + deviation * torch.randn(mean.shape, generator=chance)
    return (drawn * models.SCALING_FACTOR).to(device)


class TextTable:
    """The text features of every caption in use, computed once; row 0 is the empty caption."""

    def __init__(self, weights: Path, said: list[str], device: str) -> None:
        tokenizer = CLIPTokenizer.from_pretrained(weights / "tokenizer")
        encoder = CLIPTextModel.from_pretrained(weights / "text_encoder").float().eval().to(device)
        every = ["", *sorted(set(said))]
        number = {caption: index for index, caption in enumerate(every)}
        tokens = tokenizer(every, padding="max_length", return_tensors="pt").input_ids.to(device)
        with torch.no_grad():
            self.features = torch.cat([encoder(chunk).last_hidden_state for chunk in tokens.split(256)])
        self.rows = torch.tensor([number[caption] for caption in said])

    def __call__(self, samples: Tensor, chance: torch.Generator) -> Float[Tensor, "batch tokens features"]:
        """Return the features of the samples' captions, a tenth of them replaced by the empty one."""
        empty = torch.rand(len(samples), generator=chance) < 0.1
        return self.features[torch.where(empty, 0, self.rows[samples])]
