"""Reference pictures: what the image model itself draws, for all clips or for one."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from stillmotion.errors import FileError
from stillmotion.evaluation.found import PICTURES


def reference_files(folder: Path, name: str) -> list[Path]:
    """Return the pictures for the clip called `name`: of the folder inside `folder` of that name, else of `folder` itself.

    Raises `FileError` where `folder` is none or holds no picture at all.
    """
    if not folder.is_dir():
        raise FileError(f"{folder}: expected a folder of reference pictures, but there is none.")
    own = folder / Path(name).name
    found = _pictures(own) if own.is_dir() else []
    found = found or _pictures(folder)
    if not found and not any(_pictures(inner) for inner in folder.iterdir() if inner.is_dir()):
        raise FileError(f"{folder}: expected reference pictures ({', '.join(PICTURES)}), but the folder holds none.")
    return found


def read_picture(file: Path) -> UInt8[np.ndarray, "height width 3"]:
    """Return a picture's pixels; raise `FileError` if it is none."""
    try:
        with Image.open(file) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FileError(f"{file}: expected a picture, but it cannot be read as one.") from error


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        file for file in folder.iterdir() if file.suffix.lower() in PICTURES and not file.name.startswith(".")
    )
