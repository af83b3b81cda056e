"""What a job draws every frame towards: features of its prompts, and how far from those of the negative ones."""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from stillmotion.animate.config import AnimateConfig
from stillmotion.animate.script import along, negatives_of, prompts_of
from stillmotion.sampling import Guidance, Text, TravellingText, places


def guidance_of(
    config: AnimateConfig, encode: Callable[[Sequence[str]], Float[Tensor, "texts tokens features"] | Text]
) -> Guidance:
    """Return what every frame is drawn towards; `encode` makes features of texts, of one length."""
    negatives, prompts = negatives_of(config), prompts_of(config)
    rows = encode([*negatives.values(), *prompts.values()])
    scale = 7.5 if config.guidance_scale is None else along(config, config.guidance_scale, "guidance_scale")
    return Guidance(
        _text(config, list(prompts), rows[len(negatives) :]),
        _text(config, list(negatives), rows[: len(negatives)]),
        scale,
    )


def _text(
    config: AnimateConfig, frames: Sequence[int], rows: Float[Tensor, "keys tokens features"] | Text
) -> Tensor | Text | TravellingText:
    if len(frames) == 1:
        return rows
    between = places(frames, config.num_frames, hold=config.hold_ratio, closed=config.loop == "closed")
    return TravellingText(rows, between, config.prompt_blend)
