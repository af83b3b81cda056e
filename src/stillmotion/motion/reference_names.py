"""The reference implementation's names of what lies in a site of motion, and this project's, which are diffusers'.

See the table in `checkpoints/motion_keys.py`.
"""

import re

POSITIONS = ".pos_embed.pe"
"""End of the name of a positional encoding, shape (1, positions, channels)."""

_REFERENCE_POSITIONS = re.compile(r"\.attention_blocks\.\d+\.pos_encoder\.(?:pe|positional_encoding)$")


def from_reference(tail: str) -> str:
    """Return what a tensor is called here, from its name after the site; names of today stay as they are."""
    tail = tail.removeprefix("temporal_transformer.")
    tail = _REFERENCE_POSITIONS.sub(POSITIONS, tail)
    tail = re.sub(r"\.attention_blocks\.(\d+)\.", lambda match: f".attn{int(match[1]) + 1}.", tail)
    tail = re.sub(r"\.norms\.(\d+)\.", lambda match: f".norm{int(match[1]) + 1}.", tail)
    return tail.replace(".ff_norm.", ".norm3.")
