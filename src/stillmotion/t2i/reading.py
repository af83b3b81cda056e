"""Tensors out of one file, safely: safetensors or a pickle of `torch.save`, of which no code is run."""

import pickle  # noqa: TID251  # only for the name of its error
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from stillmotion.errors import FileError

SINGLE_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
"""The endings of files that hold weights."""

_WRAPPERS = ("state_dict", "model", "controlnet")  # the last is SparseCtrl's


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a file's tensors by name, mapped from it where the container allows, and its metadata: words beside them.

    What trainers wrap around the weights (`state_dict`) is taken off.

    Raises:
        FileError: There is no such file, it is damaged or holds no tensors, or it is a pickle that wants to run code.
    """
    if not path.is_file():
        raise FileError(f"{path} {'is a folder, not a file' if path.is_dir() else 'does not exist'}; check the path.")
    try:
        if path.suffix.lower() == ".safetensors":
            with safe_open(str(path), framework="pt", device="cpu") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
        mapped = zipfile.is_zipfile(path)  # not so the pickles of PyTorch before 1.6
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)  # noqa: TID251  # runs no code
    except pickle.UnpicklingError as error:
        raise FileError(
            f"{path} was refused: it is no pickle of plain tensors, or it wants to run code. Nothing of it was run. Ask "
            "for the file as .safetensors."
        ) from error
    except Exception as error:  # A damaged file can make a reader raise anything.
        reason = str(error).strip().splitlines()
        raise FileError(f"{path} is damaged or holds no weights ({reason[0] if reason else error!r}).") from error
    tensors = _unwrapped(content)
    if not tensors:
        raise FileError(f"{path} holds no tensors with names.")
    return tensors, {str(key): value for key, value in content.items() if isinstance(value, str)}


def _unwrapped(content: Any) -> dict[str, Tensor]:
    """Return the tensors of an unpickled checkpoint, by name; those of mappings in it, as an IP-Adapter's, by both names."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            return dict(_flattened(content, ""))
        content = inner
    return {}


def _flattened(content: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{name}.")
