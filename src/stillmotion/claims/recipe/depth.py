"""The depth ControlNet, trained on still pictures alone (Zhang et al. 2023); clips it steers without having seen one."""

from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from stillmotion.claims.recipe.caches import TextTable, encode, sample_latents, to_bytes
from stillmotion.claims.recipe.config import RecipeConfig
from stillmotion.sampling import Denoiser, Diffusion
from stillmotion.sampling.control import Images, Moment, Rows, Steering
from stillmotion.seeding import generator
from stillmotion.toyworld import brought_file, models
from stillmotion.toyworld.drawing import draw_depth
from stillmotion.toyworld.language import Scene, draw_scene
from stillmotion.toyworld.world import draw_pictures
from stillmotion.training.loop import StepDone, run
from stillmotion.training.objectives import DenoisingObjective, LatentBatch

PICTURES_PER_STEP = 16
HINT_CHANNELS = (8, 16, 32, 64)
"""Channels of the small net that a depth picture first passes through."""
_CHUNK = 64
_SEED_OFFSET = 2  # pictures of its own, that nothing else was trained on


def train_depth(config: RecipeConfig) -> Iterator[StepDone]:
    """Train a copy of the base's way down to see depth; the base itself is frozen."""
    torch.manual_seed(config.seed)
    weights, device = Path(config.folder) / "weights", config.device
    unet = UNet2DConditionModel.from_pretrained(weights / "unet").float().eval().requires_grad_(False).to(device)
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=HINT_CHANNELS).train().to(device)
    cache, scenes = _pictures(config), _scenes(config)
    text = TextTable(weights, [scene.caption for scene in scenes], device)
    learner = _Learner(net)

    def batch(step: int) -> LatentBatch:
        chance = generator(config.seed, "depth batch", step)
        rows = torch.randint(len(scenes), (PICTURES_PER_STEP,), generator=chance)
        learner.seen = (cache["depth"][rows].float() / 255).expand(-1, 3, -1, -1).to(device)
        return LatentBatch(sample_latents(cache, rows, chance, device).unsqueeze(2), text(rows, chance))

    diffusion = Diffusion.from_config(dict(models.make_noise_schedule().config))
    objective = DenoisingObjective(net, Denoiser(unet, [learner]), diffusion, batch, config.seed)
    yield from run(objective, config.depth, Path(config.folder) / "depth")
    net.half().save_pretrained(brought_file("controls", "depth", weights))


class _Learner:
    """A control that learns: what it sees is set before each prediction."""

    def __init__(self, net: ControlNetModel) -> None:
        self.net = net
        self.seen: Tensor | None = None

    def __call__(self, images: Images, timesteps: Tensor, text: Rows, moment: Moment) -> Steering:  # noqa: ARG002
        down, mid = self.net(images, timesteps, text, self.seen, return_dict=False)
        return Steering(down=tuple(down), mid=mid)


def _scenes(config: RecipeConfig) -> list[Scene]:
    seed = config.seed + _SEED_OFFSET
    return [draw_scene(generator(seed, "toyworld scene", index)) for index in range(config.depth_pictures)]


def _pictures(config: RecipeConfig) -> dict[str, Tensor]:
    """Return the pictures' latent posteriors and their depth, in bytes, drawing and encoding them once."""
    path = Path(config.folder) / "depth-pictures.safetensors"
    if not path.exists():
        vae = AutoencoderKL.from_pretrained(Path(config.folder) / "weights" / "vae").float().eval().to(config.device)
        parts = []
        for start in range(0, config.depth_pictures, _CHUNK):
            indices = range(start, min(start + _CHUNK, config.depth_pictures))
            drawn = draw_pictures(indices, seed=config.seed + _SEED_OFFSET, device=config.device)
            depth = to_bytes(draw_depth(drawn.look, drawn.poses))[:, :1].cpu().contiguous()
            parts.append({**encode(vae, to_bytes(drawn.pixels[:, :, 0]), config.device), "depth": depth})
        save_file({name: torch.cat([part[name] for part in parts]) for name in parts[0]}, path)
    return load_file(path)
