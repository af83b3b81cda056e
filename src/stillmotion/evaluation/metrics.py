"""What is measured, as data: names, units, which way is better, and what each takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

MetricName = Literal[
    "text",
    "domain",
    "smoothness",
    "motion",
    "object_motion",
    "zoom",
    "pan",
    "tilt",
    "roll",
    "camera_confidence",
    "warping_error",
    "flicker",
    "loop_seam",
    "saturation",
]
"""The measures, in the order in which they are shown."""

NAMES: tuple[MetricName, ...] = get_args(MetricName)

Takes = Literal["clip", "flow", "pixels"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One measure of a clip."""

    title: str
    """What it is called in tables."""
    unit: str
    """What its numbers are."""
    takes: Takes
    """What computes it: a CLIP model, optical flow, or the pixels alone."""
    sentence: str
    """What it says."""
    better: Literal["higher", "lower", ""] = ""
    """Which way is better; empty where it depends on what was wanted."""
    fewest_frames: int = 2
    """How many frames a clip must have."""
    ratio: bool = False
    """Whether it is a factor: averaged as the geometric mean."""
    decimals: int = 2
    """How many digits are shown behind the point."""


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "text": Metric(
            title="Text",
            unit="100·cos",
            takes="clip",
            better="higher",
            fewest_frames=1,
            sentence="How near each frame is to the prompt: 100 times the cosine of their CLIP features, over all frames.",
        ),
        "domain": Metric(
            title="Domain",
            unit="100·cos",
            takes="clip",
            better="higher",
            fewest_frames=1,
            sentence="How near each frame is to the reference pictures of the image model, over all frames and pictures.",
        ),
        "smoothness": Metric(
            title="Smoothness",
            unit="100·cos",
            takes="clip",
            better="higher",
            sentence="How near each frame is to the one before, in CLIP's eyes; a clip that stands still has 100.",
        ),
        "motion": Metric(
            title="Motion",
            unit="% of the shorter side, per frame",
            takes="flow",
            sentence="How far pixels move from a frame to the next: the mean length of the optical flow.",
        ),
        "object_motion": Metric(
            title="Motion beside the camera's",
            unit="% of the shorter side, per frame",
            takes="flow",
            sentence="The mean length of what is left of the flow when the camera's motion is taken off.",
        ),
        "zoom": Metric(
            title="Camera zoom",
            unit="times over the clip",
            takes="flow",
            ratio=True,
            sentence="How many times larger things are in the end; below 1 the camera goes away.",
        ),
        "pan": Metric(
            title="Camera pan",
            unit="frame widths over the clip",
            takes="flow",
            decimals=3,
            sentence="How far the camera turns right; negative is left.",
        ),
        "tilt": Metric(
            title="Camera tilt",
            unit="frame heights over the clip",
            takes="flow",
            decimals=3,
            sentence="How far the camera turns up; negative is down.",
        ),
        "roll": Metric(
            title="Camera roll",
            unit="degrees over the clip",
            takes="flow",
            sentence="How far the camera rolls clockwise; negative is anticlockwise.",
        ),
        "camera_confidence": Metric(
            title="Camera confidence",
            unit="share of points",
            takes="flow",
            sentence="How many of the points that can be followed agree on the camera's motion; below 0.85 do not trust it.",
        ),
        "warping_error": Metric(
            title="Warping error",
            unit="% of full brightness",
            takes="flow",
            better="lower",
            sentence="What of the change between frames motion does not explain: each frame against the next one warped back.",
        ),
        "flicker": Metric(
            title="Flicker",
            unit="% of full brightness",
            takes="pixels",
            better="lower",
            sentence="The mean change of a pixel from a frame to the next; motion counts too (1 less this is VBench's).",
        ),
        "loop_seam": Metric(
            title="Loop seam",
            unit="times the median step",
            takes="pixels",
            better="lower",
            fewest_frames=3,
            ratio=True,
            sentence="How much larger the step from the last frame to the first is than the others; about 1 for a loop.",
        ),
        "saturation": Metric(
            title="Saturation",
            unit="% of full colour",
            takes="pixels",
            fewest_frames=1,
            sentence="How far colours are from grey: the mean of a pixel's largest channel less its smallest.",
        ),
    }
)
"""Every measure by name."""
