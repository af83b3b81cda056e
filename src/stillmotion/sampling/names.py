"""The samplers' names, apart from what they name: configs and flags are read without diffusers."""

from typing import Literal

SamplerName = Literal[
    "ddim",
    "ddim_trailing",
    "euler",
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
