"""Depth of pictures, by any depth model that transformers' pipeline takes: what a depth ControlNet reads."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from stillmotion.errors import FileError


class DepthModel:
    """A depth model of a local folder; near is bright, as ControlNets are trained."""

    def __init__(self, folder: str | Path, device: str | torch.device = "cpu") -> None:
        """Load it.

        Raises:
            FileError: The folder holds no depth model that transformers knows.
        """
        check_depth_folder(folder)
        from transformers import pipeline  # noqa: PLC0415  # seconds, which jobs without depth do not wait

        try:
            self._estimate = pipeline("depth-estimation", model=str(Path(folder).expanduser()), device=str(device))
        except Exception as error:  # the libraries raise many kinds for a damaged file or config
            reason = str(error).strip().splitlines()
            raise FileError(
                f"{folder} is no depth model that can be loaded ({reason[0] if reason else error!r})."
            ) from error
        config = self._estimate.model.config
        self.metric = getattr(config, "depth_estimation_type", "") == "metric" or config.model_type == "zoedepth"

    @torch.no_grad()
    def __call__(self, frames: UInt8[np.ndarray, "frames height width 3"]) -> Float[Tensor, "frames 3 height width"]:
        """Return how near each pixel is, from 0 for the farthest of the clip to 1 for the nearest.

        The whole clip has one scale: each frame by itself would flicker as things come and go.
        """
        found = [self._estimate(Image.fromarray(frame))["predicted_depth"] for frame in frames]
        depth = torch.stack([torch.as_tensor(one).float().cpu().reshape(one.shape[-2:]) for one in found])
        if depth.shape[1:] != frames.shape[1:3]:
            depth = torch.nn.functional.interpolate(depth[None], frames.shape[1:3], mode="bilinear")[0]
        near = 1 / depth.clamp(min=1e-3) if self.metric else depth
        low, high = near.min(), near.max()
        near = (near - low) / (high - low) if high > low else torch.zeros_like(near)
        return near[:, None].expand(-1, 3, -1, -1)


def check_depth_folder(folder: str | Path) -> None:
    """Raise `FileError` unless the folder holds a model's config."""
    path = Path(folder).expanduser()
    if not (path / "config.json").is_file():
        why = "has no config.json" if path.is_dir() else "is no folder" if path.exists() else "does not exist"
        raise FileError(f"{folder} {why}; expected a folder of a depth model, such as Depth Anything's.")
