"""How the toyworld's weights are made: VAE, CLIP pair, judge, base T2I, motion module, in that order.

Each stage goes on from its newest checkpoint and is skipped once its file stands, so the recipe can be stopped at any
moment and started again. On two CPU cores it takes about two hours, on a GPU minutes.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor

from transformers import CLIPTextModel, CLIPTokenizer

from stillmotion.motion import MotionModule, plug
from stillmotion.sampling.denoiser import Denoiser
from stillmotion.sampling.schedule import Diffusion
from stillmotion.seeding import generator
from stillmotion.shapes import fold_frames, unfold_frames
from stillmotion.toyworld import models, write_manifest
from stillmotion.toyworld.choreography import CLIP_FRAMES
from stillmotion.toyworld.judge import Judge, JudgeObjective
from stillmotion.toyworld.language import MOTIONS, Scene, draw_scene, shorten
from stillmotion.toyworld.world import draw_clips, draw_pictures, picture_truth
from stillmotion.training.loop import LoopConfig, StepDone, run
from stillmotion.training.objectives import Captioned, ClipObjective, DenoisingObjective, LatentBatch, VaeObjective


@dataclass(frozen=True, kw_only=True)
class RecipeConfig:
    """What the recipe spends on each stage."""

    folder: str = "runs/toyworld"
    """Where checkpoints, caches and, at the end, the weights are written."""
    device: str = "cpu"
    """`cpu`, or `cuda` where there is one."""
    seed: int = 20240501
    """The seed of every draw."""
    num_pictures: int = 12_288
    """Drawn stills for the VAE, the CLIP pair and the base model."""
    num_clips: int = 512
    """Drawn clips for the motion module."""
    vae: LoopConfig = field(
        default=LoopConfig(num_steps=1400, optimizer="muon", muon_rate=0.02, learning_rate=2e-3, ema_decay=0.99)
    )
    """The autoencoder's training."""
    clip: LoopConfig = field(
        default=LoopConfig(num_steps=600, learning_rate=8e-4, warmup_steps=60, betas=(0.9, 0.98), weight_decay=0.05)
    )
    """The CLIP pair's training; its text tower is the base model's text encoder."""
    base: LoopConfig = field(
        default=LoopConfig(num_steps=1000, optimizer="muon", muon_rate=0.014, learning_rate=2e-3, ema_decay=0.995)
    )
    """The base text-to-image model's training."""
    motion: LoopConfig = field(
        default=LoopConfig(num_steps=640, optimizer="muon", muon_rate=0.02, learning_rate=2e-3, ema_decay=0.98)
    )
    """The motion module's training, the base frozen."""
    judge: LoopConfig = field(default=LoopConfig(num_steps=700, learning_rate=1e-3, ema_decay=0.99, weight_decay=0.01))
    """The training of the network that reads pictures back."""


@dataclass(frozen=True, kw_only=True)
class StageStep:
    """One step of one stage of the recipe."""

    stage: str
    done: StepDone


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


def to_bytes(pixels: Float[Tensor, "..."]) -> UInt8[Tensor, "..."]:
    """Return pixels in [-1, 1] as 0…255."""
    return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_bytes(pixels: UInt8[Tensor, "..."], device: str = "cpu") -> Float[Tensor, "..."]:
    """Return bytes as pixels in [-1, 1]."""
    return pixels.to(device).float() / 127.5 - 1


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
    out.bias += (out.weight[..., 0, 0] @ mean)
    out.weight *= spread.view(1, -1, 1, 1)


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


def train_motion(config: RecipeConfig) -> Iterator[StepDone]:
    """Train a v3 motion module on clips, the base model frozen (paper Eq. 7)."""
    torch.manual_seed(config.seed)
    weights, device = Path(config.folder) / "weights", config.device
    cache = clip_cache(config)
    text = TextTable(weights, [scene.caption for scene in clip_scenes(config)], device)
    unet = UNet2DConditionModel.from_pretrained(weights / "unet").float().eval().requires_grad_(False).to(device)
    widths, layers = unet.config.block_out_channels, unet.config.layers_per_block
    motion = MotionModule.from_variant("v3", block_out_channels=widths, layers_per_block=layers).to(device)
    frames = torch.arange(CLIP_FRAMES)

    def batch(step: int) -> LatentBatch:
        chance = generator(config.seed, "motion batch", step)
        clips = torch.randint(config.num_clips, (4,), generator=chance)
        rows = (clips[:, None] * CLIP_FRAMES + frames).flatten()
        latents = unfold_frames(sample_latents(cache, rows, chance, device), CLIP_FRAMES)
        return LatentBatch(latents, text(clips, chance))

    diffusion = Diffusion.from_config(dict(models.make_noise_schedule().config))
    objective = DenoisingObjective(motion, Denoiser(unet), diffusion, batch, config.seed)
    with plug(unet, motion, CLIP_FRAMES):
        yield from run(objective, config.motion, Path(config.folder) / "motion")
    (weights / "motion").mkdir(exist_ok=True)
    tensors = {name: value.half().contiguous() for name, value in motion.state_dict().items()}
    about = {"kind": "motion_module", "variant": "v3", "geometry": asdict(motion.geometry)}
    save_file(tensors, weights / "motion" / "v3_toyworld_mm.safetensors", {"stillmotion": json.dumps(about)})


def train_clip(config: RecipeConfig) -> Iterator[StepDone]:
    """Train the CLIP pair on stills and their captions; keep its text tower as the base model's text encoder."""
    torch.manual_seed(config.seed)
    weights = Path(config.folder) / "weights"
    tokenizer = models.make_tokenizer(weights / "tokenizer")
    clip = models.make_clip(tokenizer).to(config.device)
    pictures, scenes = picture_cache(config), captions(config, config.num_pictures)
    small = torch.cat([_shrink(chunk) for chunk in pictures.split(512)])
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


def _shrink(pictures: UInt8[Tensor, "pictures 3 128 128"]) -> UInt8[Tensor, "pictures 3 64 64"]:
    return to_bytes(F.interpolate(from_bytes(pictures), (64, 64), mode="bilinear", antialias=True))


def train_judge(config: RecipeConfig) -> Iterator[StepDone]:
    """Train the judge on drawn stills, roughened as generated ones are: through the VAE, blurred, with noise."""
    torch.manual_seed(config.seed)
    weights = Path(config.folder) / "weights"
    judge = Judge().to(config.device)
    pictures = picture_cache(config)
    truth = picture_truth(range(len(pictures)), seed=config.seed)
    vae = AutoencoderKL.from_pretrained(weights / "vae").float().eval().to(config.device)
    with torch.no_grad():
        chunks = [from_bytes(chunk, config.device) for chunk in pictures[: config.num_pictures // 8].split(16)]
        through = torch.cat([_shrink(to_bytes(vae.decode(vae.encode(c).latent_dist.mean).sample).cpu()) for c in chunks])
    small = torch.cat([through, *(_shrink(chunk) for chunk in pictures[len(through) :].split(512))])

    def batch(step: int) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        chance = generator(config.seed, "judge batch", step)
        half = (torch.randint(len(through), (32,), generator=chance), torch.randint(len(small), (32,), generator=chance))
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

    def __call__(self, samples: Tensor, chance: torch.Generator) -> Float[Tensor, "batch tokens width"]:
        """Return the features of the samples' captions, a tenth of them replaced by the empty one."""
        empty = torch.rand(len(samples), generator=chance) < 0.1
        return self.features[torch.where(empty, 0, self.rows[samples])]


def train_base(config: RecipeConfig) -> Iterator[StepDone]:
    """Train the text-to-image model on stills, its text encoder frozen (paper Eq. 2)."""
    torch.manual_seed(config.seed)
    weights, device = Path(config.folder) / "weights", config.device
    cache_path = Path(config.folder) / "picture-latents.safetensors"
    if not cache_path.exists():
        vae = AutoencoderKL.from_pretrained(weights / "vae").float().eval().to(device)
        save_file(encode(vae, picture_cache(config), device), cache_path)
    cache = load_file(cache_path)
    text = TextTable(weights, [scene.caption for scene in captions(config, config.num_pictures)], device)
    unet = models.make_unet().to(device)

    def batch(step: int) -> LatentBatch:
        chance = generator(config.seed, "base batch", step)
        rows = torch.randint(config.num_pictures, (32,), generator=chance)
        return LatentBatch(sample_latents(cache, rows, chance, device).unsqueeze(2), text(rows, chance))

    schedule = models.make_noise_schedule()
    diffusion = Diffusion.from_config(dict(schedule.config))
    yield from run(
        DenoisingObjective(unet, Denoiser(unet), diffusion, batch, config.seed), config.base, Path(config.folder) / "base"
    )
    schedule.save_pretrained(weights / "scheduler")
    unet.half().save_pretrained(weights / "unet", max_shard_size="14MB")


def stages(config: RecipeConfig) -> dict[str, tuple[Path, Callable[[RecipeConfig], Iterator[StepDone]]]]:
    """Return the stages in order: the file that says a stage is done, and what makes it."""
    weights = Path(config.folder) / "weights"
    return {
        "vae": (weights / "vae" / "config.json", train_vae),
        "clip": (weights / "text_encoder" / "config.json", train_clip),
        "base": (weights / "unet" / "config.json", train_base),
        "judge": (weights / "judge" / "model.safetensors", train_judge),
        "motion": (weights / "motion" / "v3_toyworld_mm.safetensors", train_motion),
    }


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
    """Run the stages that are not done; yield every step."""
    for name, (mark, train) in stages(config).items():
        if not mark.exists() and only in (None, name):
            for done in train(config):
                yield StageStep(stage=name, done=done)
