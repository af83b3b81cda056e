"""The motion modules that people have, as data: where they sit, what their norms pool over, which noise they expect, and
how they are sampled.

Norm statistics and noise schedule are part of a file's format: getting them wrong gives flicker, not an error. The same
holds for the steps of a module that was distilled to few of them.
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
    trained_frames: int = 16
    """The length of the clips it was trained on: the best length of a window."""
    sampler: str = "ddim"
    """How noise is taken away, where the user does not say: a name of `sampling.SAMPLERS`."""
    num_inference_steps: int = 25
    """In how many steps, where the user does not say."""
    guidance_scale: float | None = None
    """How strongly the prompt is followed, where the user does not say; None leaves it to the image model."""


_LIGHTNING = tuple(
    Variant(
        name=f"lightning_{steps}step",
        has_mid_block=True,
        sampler="euler_trailing",
        num_inference_steps=steps,
        guidance_scale=1.0,
    )
    for steps in (1, 2, 4, 8)
)
"""AnimateDiff-Lightning (arXiv 2403.12706): v2's layout, distilled to a number of steps each, without guidance."""

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
                sampler="euler",
                num_inference_steps=50,
                guidance_scale=8.5,
            ),
            Variant(
                name="hotshot_xl",
                family="sdxl",
                max_frames=24,
                spatial_norm="across_frames",
                noise_schedule=NoiseSchedule(beta_schedule="scaled_linear"),
                trained_frames=8,
                sampler="euler_a",
                num_inference_steps=30,
                guidance_scale=7.5,
            ),
            # arXiv 2402.00769; steps and guidance as in the authors' example of clips in four steps
            Variant(
                name="animate_lcm",
                has_mid_block=True,
                max_frames=64,
                sampler="lcm",
                num_inference_steps=4,
                guidance_scale=1.5,
            ),
            *_LIGHTNING,
        )
    }
)
