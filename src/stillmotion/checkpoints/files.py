"""Tensors out of files, safely: no file can run code, and none is read further than asked.

`read_header` gives names, shapes and dtypes; `read_tensors` the tensors, mapped from the file where its container
allows it. Both know safetensors, the zip of `torch.save` and its older pickle. A pickle may hold tensors and plain
values; one that asks for any other Python object is refused, unrun, by the name of that object.
"""

import hashlib
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stillmotion.checkpoints.containers import Container, container_of, safetensors_header
from stillmotion.errors import FileError

WRAPPERS = ("state_dict", "controlnet", "model", "module")
"""Names under which trainers put the weights when a file holds more than weights."""

TRAINING_STATE = ("optimizer", "optimizers", "optimizer_states", "lr_scheduler", "lr_schedulers", "scaler", "rng_state")
"""Names under which trainers put what is needed to go on, and not to use the weights."""

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
"""Names of dtypes in a safetensors header."""


def read_tensors(path: str | PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file by name, on the CPU, and what else it says of itself.

    Tensors are mapped from the file where the container allows it (safetensors, zip), so that nothing is read before it
    is used; copy them if the file may be changed while they live. A wrapper such as `state_dict` is taken off. Plain
    values beside the tensors (`epoch`, `global_step`) come back as text in the second mapping, with a safetensors
    file's own metadata; anything else is left out.

    Raises:
        FileError: The file holds no weights, is damaged, or is a pickle that wants code.
    """
    path = Path(path)
    container = container_of(path)
    if container != "safetensors":
        return _named_tensors(_unpickle(path, container), path)
    header = safetensors_header(path)
    metadata = _own_words(header)
    return _read_safetensors(path, list(header)), metadata


def read_header(path: str | PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return what `read_tensors` does, with tensors on the `meta` device: names, shapes and dtypes, no values.

    Single numbers, such as a LoRA's alphas, come with their value. Of a file of several gigabytes, some kilobytes are
    read; only the older pickles of `torch.save` have to be read whole.

    Raises:
        FileError: As `read_tensors`.
    """
    path = Path(path)
    container = container_of(path)
    if container != "safetensors":
        tensors, metadata = _named_tensors(_unpickle(path, container), path)
        return {name: _shape_of(tensor) for name, tensor in tensors.items()}, metadata
    header = safetensors_header(path)
    metadata = _own_words(header)
    # The library checks that the header is whole; single numbers are read on that occasion.
    numbers = _read_safetensors(path, [name for name, entry in header.items() if not entry.get("shape")])
    unknown = sorted({entry["dtype"] for entry in header.values()} - DTYPES.keys())
    if unknown:
        raise FileError(f"{path} holds tensors of dtype {', '.join(unknown)}; known are {', '.join(DTYPES)}.")
    shapes = {
        name: torch.empty(entry["shape"], dtype=DTYPES[entry["dtype"]], device="meta") for name, entry in header.items()
    }
    return shapes | numbers, metadata


def _own_words(header: dict[str, Any]) -> dict[str, str]:
    """Take the metadata out of a safetensors header and return it."""
    return {str(key): str(value) for key, value in (header.pop("__metadata__", None) or {}).items()}


def _read_safetensors(path: Path, names: list[str]) -> dict[str, Tensor]:
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise FileError(f"{path} is a damaged safetensors file ({error}). Fetch it again.") from error


def _shape_of(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim == 0 else torch.empty_like(tensor, device="meta")


def sha256(path: str | PathLike[str]) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits, read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpickle(path: Path, container: Container) -> object:
    """Return what a pickle holds, its tensors on the CPU; no object but tensors and plain values can come out of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch remarks about odd pickles, our refusals say
            return torch.load(path, map_location="cpu", weights_only=True, mmap=container == "torch_zip")
    except pickle.UnpicklingError as error:
        wanted = _offending_global(path, container, str(error))
        if wanted is None:
            raise FileError(
                f"{path} is a Python pickle, but not one of PyTorch weights that can be read without running code "
                f"({_last_line(error)}). Ask for the file as .safetensors."
            ) from error
        raise FileError(
            f"{path} was refused: it is a pickle that wants to run code ({wanted}). Nothing of it was run. Weights "
            "need no code: ask for the file as .safetensors, and do not load this one elsewhere unless you trust it."
        ) from error
    except Exception as error:  # A damaged pickle can make the unpickler raise anything.
        raise FileError(
            f"{path} is a PyTorch checkpoint that is damaged or was cut short at {path.stat().st_size:,} bytes "
            f"({_last_line(error)}). Fetch it again."
        ) from error


def _last_line(error: Exception) -> str:
    """Return the part of PyTorch's message that says what was wrong, without its advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "weights_only" not in line and "documentation" not in line]
    return (telling or lines or [type(error).__name__])[-1][:200]


def _offending_global(path: Path, container: Container, message: str) -> str | None:
    """Return the Python object that a refused pickle wants, such as `posix.system`."""
    named = re.search(r"GLOBAL ([\w.]+)", message)
    if named:
        return named[1]
    try:
        if container == "torch_pickle":
            return next(_globals_in(path.read_bytes()), None)
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            return next(_globals_in(archive.read(name)), None)
    except (ValueError, StopIteration, zipfile.BadZipFile, NotImplementedError):
        return None


def _globals_in(data: bytes) -> Iterator[str]:
    """Yield the Python objects that a pickle names, without building any."""
    texts: list[str] = []
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "GLOBAL":
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif isinstance(argument, str):
            texts.append(argument)


def _named_tensors(content: object, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the plain values of an unpickled checkpoint, its wrapper taken off."""
    if not isinstance(content, Mapping):
        raise FileError(f"{path} holds a {type(content).__name__}, not tensors with names.")
    metadata = _plain_values(content)
    inner = _unwrapped(content)
    tensors = dict(_flattened(inner))
    if not tensors:
        found = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise FileError(f"{path} is a PyTorch checkpoint without a single tensor; it holds {found}.")
    return tensors, metadata | _plain_values(inner)


def _unwrapped(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return the mapping of weights inside `content`, which may itself be it."""
    for wrapper in WRAPPERS:
        inner = content.get(wrapper)
        if isinstance(inner, Mapping) and inner:
            return _unwrapped(inner)
    return content


def _plain_values(content: Mapping[Any, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in content.items() if isinstance(value, str | int | float | bool)}


def _flattened(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested mappings under dotted names, as `ip_adapter.1.to_k_ip.weight`."""
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value.detach()
        elif isinstance(value, Mapping) and key not in TRAINING_STATE:
            yield from _flattened(value, f"{prefix}{key}.")
