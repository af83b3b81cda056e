"""What one process does of a latent cache: the VAE loaded, its share of the clips encoded."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from stillmotion.data import (
    CacheHeader,
    ClipRecipe,
    ClipSource,
    Encode,
    Prepared,
    open_source,
    prepare,
    vae_fingerprint,
)
from stillmotion.devices import choose_device
from stillmotion.products import faster_products
from stillmotion.t2i import load_t2i, load_vae
from stillmotion.t2i.naming import named_model
from stillmotion.t2i.quiet import hide_loading_bars
from stillmotion.toyworld import weights_folder
from stillmotion.training.drawn import drawn_footage
from stillmotion.training.preparing.config import TOYWORLD, PrepareConfig


def fill_share(
    config: PrepareConfig, source: ClipSource, cancel: Callable[[], bool]
) -> tuple[CacheHeader, Iterator[Prepared]]:
    """Return the cache's header, and the iterator that encodes this process's share of the clips."""
    worker, num_workers = share_of(config)
    vae, header = vae_and_header(config, source)
    encode = _encoder(config, vae, worker)
    clips = prepare(
        source,
        encode,
        config.out,
        header,
        frames_per_batch=config.batch,
        worker=worker,
        num_workers=num_workers,
        cancel=cancel,
    )
    return header, clips


def opened(config: PrepareConfig) -> ClipSource:
    """Return the clips; raise `FileError` where there are none."""
    drawn = drawn_footage(config.source, seed=0, size=config.size[0])
    return drawn or open_source(config.source, video_folder=config.video_folder)


def share_of(config: PrepareConfig) -> tuple[int, int]:
    """Return which share this process does, and of how many: as the config says, else torchrun, else all."""
    return config.worker or (int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def vae_and_header(config: PrepareConfig, source: ClipSource) -> tuple[AutoencoderKL, CacheHeader]:
    """Return the VAE, in float32 on the CPU, and the header of the cache that it makes."""
    width, height = config.size
    recipe = ClipRecipe(width=width, height=height, buckets=config.buckets, num_frames=1)
    vae = _load(config)
    header = CacheHeader(
        vae=vae_fingerprint(vae.state_dict()),
        scaling_factor=float(vae.config.scaling_factor),
        width=width,
        height=height,
        dtype=config.dtype,
        source=source.fingerprint(),
        keep_every=config.keep_every,
        buckets=recipe.sizes if config.buckets else (),
    )
    return vae, header


def _load(config: PrepareConfig) -> AutoencoderKL:
    """Return the VAE in float32: the one named, or the model's."""
    hide_loading_bars()
    if config.vae is not None:
        loaded = load_vae(config.vae)
    elif config.model == TOYWORLD:
        loaded = load_vae(weights_folder())
    else:
        model = named_model(config.model)
        loaded = load_vae(model) if Path(model).exists() else load_t2i(model).vae  # else a hub id
    return loaded.eval().requires_grad_(requires_grad=False)


def _encoder(config: PrepareConfig, vae: AutoencoderKL, worker: int) -> Encode:
    """Return the VAE's encoder, on the device; several workers share a machine's GPUs evenly."""
    device = choose_device(config.device)
    if config.device == "auto" and device.type == "cuda":
        device = torch.device("cuda", worker % torch.cuda.device_count())
    nn.Module.to(vae, device=device, dtype=getattr(torch, config.vae_dtype))

    def encode(images: Tensor) -> tuple[Tensor, Tensor]:
        with faster_products(vae.dtype, vae.device):
            posterior = vae.encode(images.to(vae.device, vae.dtype)).latent_dist
        return posterior.mean, posterior.logvar

    return encode
