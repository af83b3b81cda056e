"""What a clip can be written as."""

from typing import Literal, get_args

ClipFormat = Literal["mp4", "webm", "gif", "webp", "png"]
"""What a clip is written as; `png` is a folder of numbered frames."""

FORMATS: tuple[ClipFormat, ...] = get_args(ClipFormat)
