"""Names of samplers, windows, noises and filters, apart from what they name: configs and flags are read without diffusers."""

from typing import Literal

SamplerName = Literal[
    "ddim",
    "ddim_trailing",
    "euler",
    "euler_trailing",
    "euler_a",
    "dpm++",
    "dpm++_karras",
    "dpm++_sde",
    "dpm++_sde_karras",
    "pndm",
    "unipc",
    "lcm",
]
"""A key of `SAMPLERS`, where it is said what each is."""

ScheduleName = Literal["static", "uniform", "looped"]
"""How context windows lie over a long clip; see `context`."""

FusionName = Literal["flat", "pyramid", "overlap_linear"]
"""How much each place of a window counts where windows overlap; see `context`."""

NoiseName = Literal["independent", "repeated", "freenoise"]
"""How the frames' noises depend on one another; see `noise`."""

FilterName = Literal["gaussian", "butterworth", "ideal", "box"]
"""The shape of FreeInit's low-pass filter; see `freeinit`."""

BlendName = Literal["linear", "slerp"]
"""How features of two prompts are mixed; see `travel`."""
