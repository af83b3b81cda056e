"""What a training step is measured on."""

from dataclasses import dataclass
from typing import Annotated, Literal

from stillmotion.config import Config, Limits


@dataclass(frozen=True, kw_only=True)
class TrainShape(Config):
    """The models' size and the batch of a training step."""

    size: Literal["sd15", "half", "tiny"]
    """Widths of the models, by name."""

    num_frames: Annotated[int, Limits(minimum=1)] = 16
    """Frames of a clip."""

    pixels: Annotated[int, Limits(minimum=32, maximum=1024, multiple_of=8)] = 256
    """Width and height of a frame, in pixels."""

    batch_size: Annotated[int, Limits(minimum=1)] = 1
    """Clips of a step."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the UNet computes in, bfloat16 by autocast; weights are kept in float32."""
