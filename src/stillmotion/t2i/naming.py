"""What a user may name an image model by: a folder, a file, a hub id."""

import re
from pathlib import Path

from stillmotion.errors import FileError
from stillmotion.t2i.reading import SINGLE_FILES

_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def named_model(source: str) -> str:
    """Return the image model's folder, file or hub id, nothing loaded; raise `FileError` where it can be none of them."""
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / "unet" / "config.json").is_file():
            raise FileError(
                f"model: {source} is no diffusers folder (unet/config.json is missing); give the folder that holds "
                f"model_index.json, a single checkpoint file, or a hub id."
            )
        return str(path)
    if not path.is_file() and (path.suffix.lower() in SINGLE_FILES or not _HUB_ID.fullmatch(source)):
        raise FileError(f"model: {source} does not exist; give a diffusers folder, a checkpoint file or a hub id.")
    return str(path) if path.is_file() else source
