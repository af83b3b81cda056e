"""The two layouts of a batch of clips, and the only functions that change one into the other.

Clip layout is (batch, channels, frames, height, width). Image layout is (batch·frames, channels, height, width), the
frames of a clip adjacent: what an image UNet and a VAE take.
"""

from einops import rearrange, repeat
from jaxtyping import Float, Shaped
from torch import Tensor

from stillmotion.errors import MismatchError


def fold_frames(
    clips: Shaped[Tensor, "batch channels frames height width"],
) -> Shaped[Tensor, "images channels height width"]:
    """Return the clips as images, the frames of a clip adjacent."""
    return rearrange(clips, "b c f h w -> (b f) c h w")


def unfold_frames(
    images: Shaped[Tensor, "images channels height width"], num_frames: int
) -> Shaped[Tensor, "batch channels frames height width"]:
    """Return the images as clips of `num_frames`; raise `MismatchError` if they do not divide into such clips."""
    if num_frames < 1 or images.shape[0] % num_frames:
        raise MismatchError(f"{images.shape[0]} images do not divide into clips of {num_frames} frames.")
    return rearrange(images, "(b f) c h w -> b c f h w", f=num_frames)


def repeat_per_frame(
    rows: Float[Tensor, "batch tokens width"], num_frames: int
) -> Float[Tensor, "images tokens width"]:
    """Return one row of text features per frame, from one per clip."""
    return repeat(rows, "b t d -> (b f) t d", f=num_frames)
