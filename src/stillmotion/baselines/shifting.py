"""Text2Video-Zero's motion field: latents shifted by so much per frame (Khachatryan et al. 2023, §3.3.1)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

UNITS = 512
"""How many units of a motion field the picture's width has, and its height: pixels at the size of the paper."""


def shifted(
    latents: Float[Tensor, "channels rows columns"], frames: Sequence[int], field: tuple[float, float]
) -> Float[Tensor, "channels frames rows columns"]:
    """Return the latents as each frame has them: frame k looks k·field further right and down, so things move left and up.

    Args:
        latents: Of the first frame.
        frames: Numbers of the frames.
        field: How far it looks further per frame, (right, down), in 512ths of the width and the height.

    The nearest latent is taken, and what comes in is the picture mirrored at its edge. Like the reference implementation,
    which averages a field of 512x512 numbers, this samples half a unit above and left of a latent's centre.
    """
    rows, columns = latents.shape[1:]
    steps = torch.tensor(frames, device=latents.device, dtype=torch.float32)
    across = _places(columns, latents.device) + (steps[:, None] * field[0]) / UNITS
    down = _places(rows, latents.device) + (steps[:, None] * field[1]) / UNITS
    grid = torch.stack(
        [across[:, None, :].expand(-1, rows, -1), down[:, :, None].expand(-1, -1, columns)], dim=-1
    )  # in shares of the picture, (frames, rows, columns, 2)
    copies = latents.float().expand(len(steps), -1, -1, -1)
    moved = F.grid_sample(copies, grid * 2 - 1, mode="nearest", padding_mode="reflection", align_corners=False)
    return moved.transpose(0, 1).to(latents.dtype)


def _places(count: int, device: torch.device) -> Float[Tensor, "1 places"]:
    centres = (torch.arange(count, device=device, dtype=torch.float32) + 0.5) / count
    return (centres - 0.5 / UNITS)[None]
