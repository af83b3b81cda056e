"""The tiny weights that ship with the package: a diffusers folder, the motion module, the CLIP pair, the judge."""

import hashlib
import json
from pathlib import Path

from safetensors.torch import load_file

from stillmotion.errors import FileError
from stillmotion.toyworld.judge import Judge

FOLDER = Path(__file__).parent / "weights"
MANIFEST = "manifest.json"
_PLACES = {
    "motion": "ablations/{}.safetensors",
    "motion_loras": "motion-loras/{}.safetensors",
    "loras": "loras/{}.safetensors",
    "embeddings": "embeddings/{}.safetensors",
    "domain_adapter": "domain-adapters/{}.safetensors",
    "controls": "controls/{}",
}


def weights_folder() -> Path:
    """Return the folder of the embedded weights; raise `FileError` if this installation has none."""
    if not (FOLDER / "model_index.json").exists():
        raise FileError(
            f"The toyworld's weights are missing from {FOLDER}; install stillmotion from a wheel or a full clone, or train "
            f"them by `stillmotion toyworld train`."
        )
    return FOLDER


def motion_file() -> Path:
    """Return the file of the embedded motion module; raise `FileError` if this installation has none."""
    files = sorted((weights_folder() / "motion").glob("*_mm.safetensors"))
    if not files:
        raise FileError(f"The toyworld's motion module is missing from {FOLDER / 'motion'}; install stillmotion again.")
    return files[0]


def brought_file(field: str, name: str, folder: Path | None = None) -> Path:
    """Return where a file that the toyworld brings by name lies in a folder of weights, whether it is there or not.

    `field` is the one of a job that takes it: motion, motion_loras, loras, embeddings, domain_adapter or controls. Without
    a folder it is the embedded one; raises `FileError` if this installation has none of that name.
    """
    path = (folder or weights_folder()) / _PLACES[field].format(name)
    if folder is None and not path.exists():
        raise FileError(
            f"The toyworld's weights hold no {name} ({path}); give a file, or train it by `stillmotion toyworld train --only "
            f"{name}`."
        )
    return path


def manifest(folder: Path) -> dict[str, dict[str, int | str]]:
    """Return every weight file's size in bytes and sha256 by its path in `folder`, as they are on disk."""
    return {
        file.relative_to(folder).as_posix(): {
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in sorted(folder.rglob("*.safetensors"))
    }


def write_manifest(folder: Path) -> Path:
    """Write `manifest.json` for the weights in `folder`; return its path."""
    path = folder / MANIFEST
    path.write_text(json.dumps(manifest(folder), indent=1) + "\n")
    return path


def load_judge(folder: Path | None = None) -> Judge:
    """Return the network that reads pictures back, in float32; from the embedded weights by default."""
    path = (folder or weights_folder()) / "judge" / "model.safetensors"
    if not path.exists():
        raise FileError(
            f"The judge's weights are missing ({path}); train them by `stillmotion toyworld train --only judge`."
        )
    judge = Judge()
    weights = load_file(path)
    judge.load_state_dict({name: value.float() for name, value in weights.items()})
    return judge.eval().requires_grad_(False)
