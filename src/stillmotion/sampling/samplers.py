"""Samplers by name, over diffusers' schedulers. The noise schedule comes from the motion module's variant, the
prediction type from the image model; a sampler adds only how it steps.
"""

import difflib
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)

from stillmotion.errors import ConfigError
from stillmotion.sampling.names import SamplerName

_SDE = {"algorithm_type": "sde-dpmsolver++"}

# What each adds to the noise schedule. "ddim" is the reference's: leading steps, the last of which ends at ᾱ = 1.
SAMPLERS: Mapping[SamplerName, tuple[type[SchedulerMixin], dict[str, Any]]] = MappingProxyType(
    {
        "ddim": (DDIMScheduler, {"timestep_spacing": "leading", "set_alpha_to_one": True}),
        "ddim_trailing": (DDIMScheduler, {"timestep_spacing": "trailing", "set_alpha_to_one": True}),
        "euler": (EulerDiscreteScheduler, {"timestep_spacing": "leading"}),
        "euler_trailing": (EulerDiscreteScheduler, {"timestep_spacing": "trailing"}),
        "euler_a": (EulerAncestralDiscreteScheduler, {"timestep_spacing": "leading"}),
        "dpm++": (DPMSolverMultistepScheduler, {"timestep_spacing": "leading"}),
        "dpm++_karras": (DPMSolverMultistepScheduler, {"timestep_spacing": "leading", "use_karras_sigmas": True}),
        "dpm++_sde": (DPMSolverMultistepScheduler, {"timestep_spacing": "leading", **_SDE}),
        "dpm++_sde_karras": (
            DPMSolverMultistepScheduler,
            {"timestep_spacing": "leading", "use_karras_sigmas": True, **_SDE},
        ),
        "pndm": (PNDMScheduler, {"timestep_spacing": "leading", "skip_prk_steps": True}),
        "unipc": (UniPCMultistepScheduler, {"timestep_spacing": "leading"}),
        "lcm": (LCMScheduler, {}),
    }
)


def make_sampler(
    name: str, noise_schedule: Mapping[str, Any], prediction_type: str, **overrides: Any
) -> SchedulerMixin:
    """Return the diffusers scheduler called `name` for a noise schedule, given in diffusers' words.

    Raises `ConfigError`, naming the nearest sampler, if there is none of that name.
    """
    if name not in SAMPLERS:
        near = difflib.get_close_matches(name, SAMPLERS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"sampler: unknown name {name!r}; expected one of {', '.join(SAMPLERS)}.{hint}")
    kind, own = SAMPLERS[cast(SamplerName, name)]
    known = inspect.signature(kind.__init__).parameters
    schedule = {
        key: value for key, value in noise_schedule.items() if key in known
    }  # not all clip, so not all know how
    return kind(**{**schedule, **own, "prediction_type": prediction_type, **overrides})
