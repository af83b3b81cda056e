"""What the stages learn from, drawn and encoded once and kept on disk; batches are functions of the step alone."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from stillmotion.claims.recipe.config import RecipeConfig
from stillmotion.data import CAMERA_MOTIONS, CameraMotion
from stillmotion.seeding import generator
from stillmotion.shapes import fold_frames
from stillmotion.toyworld import models
from stillmotion.toyworld.choreography import CLIP_FRAMES
from stillmotion.toyworld.language import MOTIONS, Scene, draw_scene, shorten
from stillmotion.toyworld.world import draw_clips, draw_pictures
from stillmotion.training.drawn import SLOWER, DrawnFootage

MOVED_SHARE = 3 / 16
"""How many of the pictures and clips that are drawn for a step were taken by a camera that moves."""
MOVED_OFTEN = {"roll-clockwise": 3.0, "roll-anticlockwise": 3.0}
"""How often each camera motion is drawn: what leans is learnt last."""
UNSAID, UNSAID_MOVED = 0.1, 0.5
"""How often a caption is left out. No caption tells of a camera, so guidance is to lead away from one that moves unasked."""


@dataclass(frozen=True)
class Shelf:
    """What a stage that dreams takes its samples from: pictures or clips, with what is said of each."""

    posteriors: dict[str, Tensor]
    """Mean and log-variance of the latents, (pictures, 4, 16, 16), clip by clip."""
    captions: list[str]
    often: Float[Tensor, "samples"]
    """How often a sample is drawn, to any sum."""
    unsaid: Float[Tensor, "samples"]
    """How often its caption is left out."""


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


def moved_cache(config: RecipeConfig) -> tuple[dict[str, Tensor], list[str], Float[Tensor, "clips"]]:
    """Return clips of moving cameras, as many of each of the eight motions.

    They are posteriors as `clip_cache`'s, captions, and how often each clip is drawn, to a sum of 1.
    """
    footage = [
        DrawnFootage(
            config.moved_clips // len(CAMERA_MOTIONS), seed=config.seed + 3 + i, camera=CameraMotion.parse(name)
        )
        for i, name in enumerate(CAMERA_MOTIONS)
    ]
    path = Path(config.folder) / "moved-latents.safetensors"
    if not path.exists():
        vae = AutoencoderKL.from_pretrained(Path(config.folder) / "weights" / "vae").float().eval().to(config.device)
        positions = [SLOWER * frame for frame in range(CLIP_FRAMES)]
        clips = (each.frames(index, positions) for each in footage for index in range(len(each)))
        parts = [encode(vae, torch.from_numpy(clip).movedim(-1, 1), config.device) for clip in clips]
        save_file({name: torch.cat([part[name] for part in parts]) for name in parts[0]}, path)
    said = [each.item(index).caption for each in footage for index in range(len(each))]
    often = torch.tensor([MOVED_OFTEN.get(name, 1.0) for name in CAMERA_MOTIONS]).repeat_interleave(len(footage[0]))
    return load_file(path), said, often / often.sum()


def with_moved(
    config: RecipeConfig, posteriors: dict[str, Tensor], scenes: list[Scene], often: dict[str, float], *, stills: bool
) -> Shelf:
    """Return samples of a camera that stands, as many drawn as `often` says of their motions, and of cameras that move.

    With `stills` the frames of the moving cameras' clips are samples of their own.
    """
    moved, said, moving = moved_cache(config)
    if stills:
        said = [caption for caption in said for _ in range(CLIP_FRAMES)]
        moving = moving.repeat_interleave(CLIP_FRAMES) / CLIP_FRAMES
    standing = torch.tensor([often.get(scene.motion or "", 1.0) for scene in scenes])
    moving = moving * standing.sum() * MOVED_SHARE / (1 - MOVED_SHARE)
    return Shelf(
        posteriors={name: torch.cat([value, moved[name]]) for name, value in posteriors.items()},
        captions=[scene.caption for scene in scenes] + said,
        often=torch.cat([standing, moving]),
        unsaid=torch.cat([torch.full_like(standing, UNSAID), torch.full_like(moving, UNSAID_MOVED)]),
    )


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

    def __init__(
        self, weights: Path, said: list[str], device: str, unsaid: Float[Tensor, "samples"] | None = None
    ) -> None:
        tokenizer = CLIPTokenizer.from_pretrained(weights / "tokenizer")
        encoder = CLIPTextModel.from_pretrained(weights / "text_encoder").float().eval().to(device)
        every = ["", *sorted(set(said))]
        number = {caption: index for index, caption in enumerate(every)}
        tokens = tokenizer(every, padding="max_length", return_tensors="pt").input_ids.to(device)
        with torch.no_grad():
            self.features = torch.cat([encoder(chunk).last_hidden_state for chunk in tokens.split(256)])
        self.rows = torch.tensor([number[caption] for caption in said])
        self._unsaid = torch.full((len(said),), UNSAID) if unsaid is None else unsaid

    def __call__(self, samples: Tensor, chance: torch.Generator) -> Float[Tensor, "batch tokens features"]:
        """Return the features of the samples' captions, some of them replaced by the empty one."""
        empty = torch.rand(len(samples), generator=chance) < self._unsaid[samples]
        return self.features[torch.where(empty, 0, self.rows[samples])]
