"""Names that stand for files which the toyworld brings: "zoom-in" for a MotionLoRA, "neon" for a style, "depth" to steer."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from stillmotion.animate.config import TOYWORLD, AnimateConfig
from stillmotion.data import CAMERA_MOTIONS
from stillmotion.toyworld import brought_file

NAMES: Mapping[str, Sequence[str]] = {
    "motion_loras": (*CAMERA_MOTIONS, "few-step"),
    "loras": ("neon",),
    "embeddings": ("pal",),
    "domain_adapter": ("stock", "few-step"),
    "controls": ("depth",),
}
"""What each field may say in place of a file."""

_OF_MOTION = ("motion_loras", "domain_adapter")


def file_said(config: AnimateConfig, field: str, said: str) -> str:
    """Return the file that a field of the job means: the one that it says, or the toyworld's of that name.

    A file of that name goes before, and names mean nothing beside other models than the toyworld's own. Raises
    `FileError` where this installation's weights hold none of that name.
    """
    own = config.model == TOYWORLD and (config.motion is None or field not in _OF_MOTION)
    is_name = own and said in NAMES[field] and not Path(said).exists()
    return str(brought_file(field, said)) if is_name else said
