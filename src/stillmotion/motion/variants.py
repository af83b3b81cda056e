"""The motion modules that people have, as data: where they sit, what their norms pool over, which noise they expect.

Norm statistics and noise schedule are part of a file's format: getting them wrong gives flicker, not an error.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal

NormStatistics = Literal["per_frame", "across_frames"]


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """The forward process a motion module was trained on, in diffusers' words."""

    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: Literal["linear", "scaled_linear"] = "linear"
    num_train_timesteps: int = 1000
    steps_offset: int = 1
    clip_sample: bool = False

    def scheduler_kwargs(self) -> dict[str, Any]:
        """Return the fields by the names that every diffusers scheduler takes."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One kind of motion module."""

    name: str
    family: Literal["sd15", "sdxl"] = "sd15"
    has_mid_block: bool = False
    max_frames: int = 32
    """Positions that were trained; a stored positional encoding may have more."""
    motion_norm: NormStatistics = "per_frame"
    """What the GroupNorm at a motion module's entrance pools over."""
    spatial_norm: NormStatistics = "per_frame"
    """What the UNet's own ResNet norms and `conv_norm_out` pool over while the module is plugged."""
    noise_schedule: NoiseSchedule = NoiseSchedule()


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        variant.name: variant
        for variant in (
            Variant(name="v1", max_frames=24, spatial_norm="across_frames"),
            Variant(name="v2", has_mid_block=True),
            Variant(name="v3"),
            Variant(
                name="sdxl_beta",
                family="sdxl",
                motion_norm="across_frames",
                noise_schedule=NoiseSchedule(beta_end=0.020, beta_schedule="scaled_linear"),
            ),
        )
    }
)
