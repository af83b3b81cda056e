"""Clips for tests of claims without any model: the drawn truth of a caption, spoilt in known ways."""

import functools

import numpy as np
import torch

from stillmotion.claims.filming import Frames
from stillmotion.toyworld import draw_clips, parse
from stillmotion.toyworld.choreography import CLIP_FRAMES


@functools.cache
def truth(caption: str, seed: int, num_frames: int = CLIP_FRAMES) -> Frames:
    """Return a clip that shows and does what the caption says, all of it in `num_frames`."""
    frames = torch.linspace(0, CLIP_FRAMES - 1, num_frames)
    drawn = draw_clips([parse(caption)], seed=seed, indices=[0], frames=frames).pixels[0]
    return ((drawn + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 3, 0).numpy()


def pictures(caption: str, count: int) -> Frames:
    """Return first frames of other clips each: what an image model draws without a motion module."""
    drawn = draw_clips([parse(caption)] * count, seed=5, indices=range(count), frames=torch.zeros(1)).pixels[:, :, 0]
    return ((drawn + 1) * 127.5).round().clamp(0, 255).byte().movedim(1, -1).numpy()


def noisy(frames: Frames, strength: int, seed: int = 0) -> Frames:
    """Return the clip with noise of its own on every frame, up to `strength` grey levels."""
    noise = np.random.default_rng(seed).integers(-strength, strength, frames.shape, endpoint=True)
    return np.clip(frames.astype(np.int16) + noise, 0, 255).astype(np.uint8)


def blinking(frames: Frames) -> Frames:
    """Return the clip with the colours of every second frame exchanged: red for green, green for blue."""
    other = frames.copy()
    other[1::2] = np.roll(other[1::2], 1, axis=3)
    return other


def pale(frames: Frames) -> Frames:
    """Return the clip with half of its colour."""
    grey = frames.mean(axis=3, keepdims=True)
    return ((frames + grey) / 2).astype(np.uint8)
