"""Sample clips made on the way, to be looked at: what the training does to a picture."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from stillmotion.data import contact_sheet, write_clip
from stillmotion.sampling import Denoiser, Guidance, make_sampler, sample
from stillmotion.seeding import frame_noise
from stillmotion.shapes import fold_frames
from stillmotion.training.config import TrainConfig
from stillmotion.training.subject import Subject

Pictures = UInt8[np.ndarray, "frames height width 3"]
Autocast = Callable[[], AbstractContextManager[object]]

_STEPS, _SCALE, _FPS = 20, 7.5, 8


def sample_clips(
    subject: Subject, config: TrainConfig, prompts: Sequence[str], autocast: Autocast
) -> Iterator[Pictures]:
    """Make a clip of every prompt, always from the same noise, under `autocast`."""
    t2i = subject.t2i
    assert config.width is not None  # settled
    assert config.height is not None
    frames = 1 if config.stage == "domain_adapter" else config.num_frames
    shape = (t2i.vae.config.latent_channels, config.height // t2i.scale, config.width // t2i.scale)
    for index, prompt in enumerate(prompts):
        empty, told = t2i.encode_text(["", prompt]).split(1)
        noise = frame_noise(config.seed + index, range(frames), shape).to(t2i.device)
        sampler = make_sampler("ddim", subject.schedule, t2i.prediction_type)
        steps = sample(Denoiser(t2i.unet), sampler, noise, Guidance(told, empty, _SCALE), num_inference_steps=_STEPS)
        with autocast():  # what is trained is in float32, the image model perhaps not
            *_, last = steps
        pixels = torch.cat([t2i.decode(chunk) for chunk in fold_frames(last.latents).split(4)])
        yield ((pixels + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def keep_sample(pictures: Pictures, folder: Path, name: str) -> Path:
    """Write a sample clip and its contact sheet; return the sheet."""
    folder.mkdir(parents=True, exist_ok=True)
    if len(pictures) > 1:
        write_clip(list(pictures), folder / f"{name}.mp4", _FPS)
    return contact_sheet(pictures, folder / f"{name}.png")
