"""How a clip is sampled where the user does not say: as its motion module was trained or distilled to be."""

from collections.abc import Mapping

from stillmotion.animate.config import SAMPLER, STEPS, TOYWORLD, AnimateConfig
from stillmotion.animate.model_files import variant_of
from stillmotion.checkpoints import FileInfo
from stillmotion.errors import ConfigError
from stillmotion.sampling import SAMPLERS

_GUIDANCE, _TOYWORLD_GUIDANCE = 7.5, 5.0


def with_sampling(config: AnimateConfig, files: Mapping[str, FileInfo]) -> tuple[AnimateConfig, tuple[str, ...]]:
    """Return the config with sampler, steps and guidance settled, and what to say of it.

    What the user gives holds; else the variant's own; else what image models take. A few-step module is told apart by
    steps of its own, and a note says so where it is sampled otherwise.
    """
    variant = variant_of(config, files["motion"]) if "motion" in files else None
    general = _TOYWORLD_GUIDANCE if config.model == TOYWORLD else _GUIDANCE
    own = {
        "sampler": variant.sampler if variant else SAMPLER,
        "num_inference_steps": variant.num_inference_steps if variant else STEPS,
        "guidance_scale": general if variant is None or variant.guidance_scale is None else variant.guidance_scale,
    }
    if own["sampler"] not in SAMPLERS:
        raise ConfigError(f"sampler: expected one of {', '.join(SAMPLERS)}, got {own['sampler']!r}")
    settled = config.replace(
        **{name: value if getattr(config, name) is None else getattr(config, name) for name, value in own.items()}
    )
    if variant is None or (variant.sampler, variant.num_inference_steps) == (SAMPLER, STEPS):
        return settled, ()
    said = f"{own['num_inference_steps']} steps of {own['sampler']} at guidance_scale {own['guidance_scale']:g}"
    other = [f"{name} {getattr(settled, name)}" for name, value in own.items() if getattr(settled, name) != value]
    note = f"motion: {files['motion'].path.name} is a {variant.name} module, which is sampled in {said}"
    return settled, (f"{note}; here {', '.join(other)}, as you said" if other else note,)
