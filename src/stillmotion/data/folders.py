"""Folders of numbered picture files: the frames of a clip, in the order of their numbers."""

import re
from pathlib import Path

from stillmotion.errors import FileError

_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def frame_files(folder: Path) -> list[Path]:
    """Return the pictures of a folder by number, then by name (`2.png` before `10.png`); a folder must have some."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in _PICTURES and not path.name.startswith(".")]
    if not found:
        raise FileError(f"{folder}: expected frames ({', '.join(_PICTURES)}), but the folder holds none.")
    return sorted(found, key=_order)


def _order(path: Path) -> tuple[int, str]:
    numbers = re.findall(r"\d+", path.stem)
    return (int(numbers[-1]) if numbers else -1, path.name)
