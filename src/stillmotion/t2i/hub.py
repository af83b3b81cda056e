"""Image models of the Hugging Face Hub: what was fetched before is used without asking, the rest is fetched once."""

import re
from collections.abc import Collection
from pathlib import Path

from diffusers import DiffusionPipeline
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from stillmotion.errors import FileError

_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def from_hub(name: str, parts: Collection[str]) -> Path:
    """Return the folder of a hub model of which `parts` are there, fetching it if need be.

    Raises:
        FileError: `name` is no hub id, or the model is not here and cannot be fetched.
    """
    if not _HUB_ID.fullmatch(name):
        raise FileError(
            f"{name} does not exist; give a diffusers folder, a single .safetensors or .ckpt file, or a hub id such as "
            "stable-diffusion-v1-5/stable-diffusion-v1-5."
        )
    try:
        folder = Path(snapshot_download(name, local_files_only=True))
        if all((folder / part).is_dir() for part in parts) and any(folder.glob("unet/*.safetensors")):
            return folder
    except LocalEntryNotFoundError:
        pass
    try:
        # Of each part one file of weights, safetensors where there are any; not the safety checker, which is not used.
        return Path(DiffusionPipeline.download(name, safety_checker=None, feature_extractor=None, image_encoder=None))
    except Exception as error:  # The network and the hub fail in many ways; all mean the same here.
        raise FileError(
            f"{name} is no folder or file here, and was not fetched from the Hugging Face Hub before; fetching it now "
            f"failed ({type(error).__name__}). Go online once and try again, run `hf download {name}` there, or give the "
            "path of a folder or a single file."
        ) from error
