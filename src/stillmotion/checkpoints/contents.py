"""A file or a folder, opened: its tensors, its config, and what Stillmotion wrote into it about itself."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from stillmotion.checkpoints.containers import Container, container_of
from stillmotion.checkpoints.files import read_header, read_tensors
from stillmotion.errors import FileError

OWN_KEY = "stillmotion"
"""The name under which a file says of itself, in JSON, what it is; for files written by Stillmotion."""

OWN_FORMAT = 1
"""The version of what stands there."""

WEIGHT_NAMES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "pytorch_lora_weights.safetensors",
    "pytorch_custom_diffusion_weights.safetensors",
    "adapter_model.safetensors",
    "model.safetensors",
    "model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.fp16.bin",
    "pytorch_lora_weights.bin",
    "pytorch_custom_diffusion_weights.bin",
    "learned_embeds.safetensors",
    "learned_embeds.bin",
    "delta.bin",
    "delta.ckpt",
    "adapter_model.bin",
    "pytorch_model.bin",
)
"""Names that diffusers, transformers and peft give to the weights in a folder, the preferred first."""

WEIGHT_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a file or a folder holds."""

    path: Path
    """The file or folder that was named."""

    file: Path
    """The file with the tensors; in a folder, the one that was chosen."""

    container: Container
    """The container of that file."""

    tensors: Mapping[str, Tensor]
    """The tensors by name; if only the header was read, on the `meta` device but for single numbers."""

    metadata: Mapping[str, str]
    """Plain values that stand in the file beside the tensors."""

    own: Mapping[str, Any] = field(default_factory=dict)
    """What Stillmotion wrote about the file; empty for files of others. Where present it is authoritative."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """The `config.json` of a folder; empty for a file."""


def open_contents(path: Path, *, values: bool) -> Contents:
    """Return what the file or folder at `path` holds; without `values`, names and shapes only.

    Raises:
        FileError: Nothing there holds weights; the message says what is there instead.
    """
    file, config = (weights_in(path), config_in(path)) if path.is_dir() else (path, {})
    container = container_of(file)
    tensors, metadata = read_tensors(file) if values else read_header(file)
    own = _own(metadata.pop(OWN_KEY, None), file)
    metadata.pop("format", None)  # says "pt" in every safetensors file, and nothing more
    return Contents(
        path=path, file=file, container=container, tensors=tensors, metadata=metadata, own=own, config=config
    )


def weights_in(folder: Path) -> Path:
    """Return the file of weights in a folder of diffusers, transformers or peft.

    Raises:
        FileError: There is none, or there are several and none bears a usual name.
    """
    for name in WEIGHT_NAMES:
        if (folder / name).exists():
            return folder / name
    files = sorted(entry for entry in folder.iterdir() if entry.suffix in WEIGHT_SUFFIXES)
    if len(files) == 1:
        return files[0]
    if (folder / "model_index.json").exists():
        raise FileError(f"{folder} is a folder of a diffusers pipeline, not of one model; name a folder inside it.")
    shards = sorted(folder.glob("*.index.json"))
    if shards:
        raise FileError(f"{folder} holds weights in several pieces ({shards[0].name}), which are not read here.")
    if files:
        few = ", ".join(file.name for file in files[:4])
        raise FileError(f"{folder} is a folder with {len(files)} files of weights ({few}); name one of them.")
    raise FileError(f"{folder} is a folder without weights; expected is, for instance, {WEIGHT_NAMES[0]} in it.")


def config_in(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Return the config of a folder; an empty one if there is none.

    Raises:
        FileError: The config is not JSON.
    """
    file = folder / name
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FileError(f"{file} is not JSON ({error}). Fetch the folder again.") from error
    if not isinstance(config, dict):
        raise FileError(f"{file} holds a {type(config).__name__}; expected is an object with the model's settings.")
    return config


def _own(text: str | None, file: Path) -> dict[str, Any]:
    """Return what Stillmotion wrote into a file about it, checked as far as its shape goes."""
    if text is None:
        return {}
    try:
        own = json.loads(text)
    except ValueError as error:
        raise FileError(f"{file}: what Stillmotion wrote into it is not JSON ({error}). Fetch it again.") from error
    if not isinstance(own, dict) or not isinstance(own.get("kind"), str):
        raise FileError(f"{file}: what Stillmotion wrote into it does not say a kind. Fetch it again.")
    if own.get("format", OWN_FORMAT) != OWN_FORMAT:
        raise FileError(f"{file} was written by a newer Stillmotion (format {own['format']!r}); update to read it.")
    return own
