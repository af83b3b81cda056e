"""Pictures seen through a moving camera: each frame sampled from its own crop, without jagged edges."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor

from stillmotion.data.camera import CameraMotion, Size, camera_path
from stillmotion.errors import MismatchError


def move_camera(
    frames: UInt8[np.ndarray, "sources height width 3"], motion: CameraMotion, num_frames: int, size: Size
) -> UInt8[np.ndarray, "frames new_height new_width 3"]:
    """Return a clip of `num_frames` frames of `size` (height, width) that a moving camera takes of a clip or still.

    A still is one frame, shown throughout; a clip has `num_frames`. Where the crop lies in each is `camera_path`'s.
    Raises `MismatchError` for another number of frames or a picture too small for the motion, `ConfigError` as
    `camera_path` does.
    """
    if len(frames) not in (1, num_frames):
        raise MismatchError(f"expected a still (1 frame) or a clip of {num_frames} frames, got {len(frames)} frames")
    path = camera_path(motion, num_frames, (frames.shape[1], frames.shape[2]), size)
    pictures = frames if len(frames) > 1 else [frames[0]] * num_frames
    return np.stack(list(along_path(pictures, path, size)))


def along_path(
    frames: Iterable[UInt8[np.ndarray, "height width 3"]], path: Float64[np.ndarray, "frames 2 3"], size: Size
) -> Iterator[UInt8[np.ndarray, "new_height new_width 3"]]:
    """Return an iterator of frames of `size` (height, width), each seen through its similarity of `path`.

    It ends with the shorter of both. Raises `MismatchError` for a frame of another size than the first's.
    """
    # Sharpness must not jump in the midst of a clip, so all its frames are sampled equally densely.
    finest = 2 if (_pixels_per_pixel(path) > 1 + 1e-9).any() else 1
    shape: tuple[int, ...] = ()
    for similarity, frame in zip(path, frames, strict=False):
        shape = shape or frame.shape
        if frame.shape != shape:
            raise MismatchError(f"expected frames of one shape, got {frame.shape} after {shape}")
        yield _seen(frame, similarity, size, finest)


def _pixels_per_pixel(path: Float64[np.ndarray, "frames 2 3"]) -> Float64[np.ndarray, "frames"]:
    """Return how many pixels of the source, along a line, one pixel of each frame covers."""
    return 1 / np.hypot(path[:, 0, 0], path[:, 1, 0])


def _seen(
    frame: UInt8[np.ndarray, "height width 3"], similarity: Float64[np.ndarray, "2 3"], size: Size, density: int
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """Return the picture through one similarity: `density` samples across each new pixel, and as many down, averaged.

    A pixel that covers more than `density` of the source's would miss some: the source is shrunk to that first.
    """
    height, width = frame.shape[:2]
    picture = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float()
    too_fine = float(_pixels_per_pixel(similarity[None])[0]) / density
    if too_fine > 1 + 1e-9:
        smaller = [math.ceil(height / too_fine), math.ceil(width / too_fine)]
        picture = F.interpolate(picture, size=smaller, mode="bilinear", antialias=True)
    places = _places(similarity, (height, width), (size[0] * density, size[1] * density), density)
    sampled = F.grid_sample(picture, places, mode="bilinear", padding_mode="border", align_corners=False)
    averaged = F.avg_pool2d(sampled, density) if density > 1 else sampled
    return averaged[0].round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


def _places(
    similarity: Float64[np.ndarray, "2 3"], source: Size, samples: Size, density: int
) -> Float32[Tensor, "1 rows columns 2"]:
    """Return where in the source each sample lies, from -1 at its left and upper edge to 1 at the others."""
    back = np.linalg.inv(similarity[:, :2])
    x = (np.arange(samples[1]) + 0.5) / density - similarity[0, 2]
    y = (np.arange(samples[0]) + 0.5) / density - similarity[1, 2]
    across = back[0, 0] * x[None, :] + back[0, 1] * y[:, None]
    down = back[1, 0] * x[None, :] + back[1, 1] * y[:, None]
    edges = np.stack([across * (2 / source[1]) - 1, down * (2 / source[0]) - 1], -1)  # in float64 until here
    return torch.from_numpy(edges.astype(np.float32))[None]
