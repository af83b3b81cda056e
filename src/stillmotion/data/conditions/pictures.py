"""Single pictures of any kind as three bytes per pixel, the way a person sees them."""

import struct
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from stillmotion.errors import FileError

Ground = Literal["white", "black"]
"""What shows through where a picture is transparent."""

_DAMAGE = (OSError, ValueError, EOFError, SyntaxError, struct.error, Image.DecompressionBombError)
_MOVING = ("GIF", "WEBP")  # Pillow opens their first frame alone as well; of other kinds that is the picture
_VIDEO = ("MPEG",)  # Pillow knows these by their first bytes, but reads no pixel of them


def read_picture(path: Path, *, ground: Ground = "white") -> UInt8[np.ndarray, "height width 3"]:
    """Return a picture upright (EXIF), without transparency, 8 bits per channel, grey as three equal channels.

    Raises `FileError` where it is missing, damaged or no picture.
    """
    try:
        with Image.open(path) as picture:
            return _upright(picture, ground)
    except FileNotFoundError:
        raise FileError(f"{path}: there is no such file.") from None
    except UnidentifiedImageError:
        raise FileError(f"{path}: expected a picture, but it cannot be read as one.") from None
    except _DAMAGE as error:
        raise FileError(f"{path}: the picture is damaged ({error}); get the file again.") from error


def is_picture(path: Path) -> bool:
    """Return whether the file is a single picture, told by its first bytes; a GIF or WebP that moves is none."""
    try:
        with Image.open(path) as picture:
            moves = picture.format in _MOVING and getattr(picture, "n_frames", 1) > 1
            return picture.format not in _VIDEO and not moves
    except _DAMAGE:  # among them the error of a file that Pillow does not know
        return False


def _upright(picture: Image.Image, ground: Ground) -> np.ndarray:
    turned = ImageOps.exif_transpose(_eight_bits(picture))
    if not turned.has_transparency_data:
        return np.array(turned.convert("RGB"))
    over = Image.new("RGBA", turned.size, ground)
    over.alpha_composite(turned.convert("RGBA"))
    return np.array(over.convert("RGB"))


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Return grey of 16 bits as grey of 8; Pillow itself would cut everything above 255 to white."""
    if not picture.mode.startswith("I") and picture.mode != "F":
        return picture
    values = np.asarray(picture).astype(np.float64)
    # 32-bit modes hold 16-bit files; floats are taken as 0…1 unless they say otherwise.
    whole = 255 / 65535 if picture.mode != "F" else 255.0 if values.max(initial=0) <= 1 else 1.0
    grey = Image.fromarray((values * whole).round().clip(0, 255).astype(np.uint8))
    grey.info = dict(picture.info)
    return grey
