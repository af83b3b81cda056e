"""Files that are either whole or not there: written beside, flushed to disk, renamed into place.

Nothing that exists is replaced unless asked, and a target that cannot be written is named before any work.
"""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stillmotion.checkpoints.files import DTYPES
from stillmotion.errors import FileError

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
"""Names that a safetensors header gives to dtypes."""

UNFINISHED = ".*.partial"
"""What a file or folder is called while it is written, as a pattern."""


def require_writable(
    path: str | PathLike[str], *, overwrite: bool = False, folder: bool = False, num_bytes: int = 0
) -> Path:
    """Return `path` if a file, or a `folder`, of `num_bytes` can be written there. An empty folder counts as none.

    Raises:
        FileError: Something is there and `overwrite` is false, or is of the other sort; the folder above is a file or
            may not be written; or the disk has less room than `num_bytes`.
    """
    path = Path(path)
    if path.is_dir() and not folder:
        raise FileError(f"{path} is a folder, where a file was to be written. Choose another name.")
    if path.exists() and not path.is_dir() and folder and overwrite:
        raise FileError(f"{path} is a file, where a folder was to be written. Choose another name.")
    vacant = folder and path.is_dir() and not any(path.iterdir())
    if not overwrite and not vacant and (path.exists() or path.is_symlink()):
        raise FileError(f"{path} exists already and is kept. Choose another name, or ask to overwrite it.")
    above = path.absolute().parent
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        raise FileError(f"{path} cannot be written: {above} is a file, not a folder.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise FileError(f"{path} cannot be written: the folder {above} may not be changed by this user.")
    free = shutil.disk_usage(above).free
    if free < num_bytes:
        raise FileError(f"{path} cannot be written: it needs {num_bytes:,} bytes, the disk has {free:,} free.")
    return path


@contextmanager
def written_beside(path: str | PathLike[str], *, overwrite: bool = False, num_bytes: int = 0) -> Iterator[Path]:
    """Give a path beside `path` to write a file or a folder to; on success flush it to disk and rename it to `path`.

    A folder is only ever new: none is replaced. If the body fails, what it wrote is removed and `path` is as before.
    Folders above `path` are made.

    Raises:
        FileError: As `require_writable`, or the disk refused while writing.
    """
    path = require_writable(path, overwrite=overwrite, num_bytes=num_bytes)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        _flush(beside)
        _move_into_place(beside, path, overwrite)
    except OSError as error:
        raise FileError(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        _remove(beside)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left of `written_beside` in a folder that no other process writes to now."""
    for beside in folder.glob(UNFINISHED):
        _remove(beside)


def write_tensors(
    path: str | PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write a safetensors file and return its path; equal tensors and metadata give equal bytes.

    Tensors may lie on any device, share memory or be strided; they are written one by one, with no second copy of all.

    Raises:
        FileError: The target cannot be written, exists and `overwrite` is false, or a dtype has no name in the format.
    """
    unknown = sorted({str(tensor.dtype) for tensor in tensors.values() if tensor.dtype not in DTYPE_NAMES})
    if unknown:
        raise FileError(f"{path} cannot hold tensors of dtype {', '.join(unknown)}.")
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header = _header(ordered, metadata or {})
    size = len(header) + sum(tensor.nbytes for _, tensor in ordered)
    with written_beside(path, overwrite=overwrite, num_bytes=size) as beside, beside.open("wb") as file:
        file.write(header)
        for _, tensor in ordered:
            values = tensor.detach().cpu().contiguous().reshape(-1)
            file.write(values.view(torch.uint8).numpy().data)
    return Path(path)


def write_pickle(path: str | PathLike[str], content: Mapping[str, Any], *, overwrite: bool = False) -> Path:
    """Write tensors and plain values with `torch.save` and return the path; equal content gives equal bytes.

    Raises:
        FileError: The target cannot be written, or exists and `overwrite` is false.
    """
    compact = _compact(content)
    with written_beside(path, overwrite=overwrite, num_bytes=_num_bytes(compact)) as beside, beside.open("wb") as file:
        torch.save(compact, file)
    return Path(path)


def _header(ordered: list[tuple[str, Tensor]], metadata: Mapping[str, str]) -> bytes:
    """Return the length and the JSON header of a safetensors file, padded to eight bytes.

    The safetensors library writes its metadata in a random order; here it is sorted, so that a file's hash means its
    content.
    """
    entries: dict[str, Any] = {"__metadata__": dict(sorted({"format": "pt", **metadata}.items()))}
    start = 0
    for name, tensor in ordered:
        end = start + tensor.nbytes
        entries[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _compact(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return `content` with every tensor on the CPU and owning no more memory than it shows."""
    result: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            result[key] = _compact(value)
        elif isinstance(value, Tensor):
            tensor = value.detach().cpu()
            whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
            result[key] = tensor if whole else tensor.clone(memory_format=torch.contiguous_format)
        else:
            result[key] = value
    return result


def _num_bytes(content: Mapping[str, Any]) -> int:
    return sum(
        _num_bytes(value) if isinstance(value, Mapping) else getattr(value, "nbytes", 0) for value in content.values()
    )


def _flush(path: Path) -> None:
    """Make the file, or every file of the folder, durable on disk."""
    for entry in [path, *path.rglob("*")] if path.is_dir() else [path]:
        handle = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _move_into_place(beside: Path, path: Path, overwrite: bool) -> None:
    """Rename `beside` to `path`; without `overwrite`, fail if another program made `path` meanwhile."""
    if overwrite or beside.is_dir():
        os.replace(beside, path)  # replaces a file; never a folder that holds something
    else:
        try:
            os.link(beside, path)  # Unlike a rename, a link never replaces.
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            beside.rename(path)  # A disk without hard links; `require_writable` has looked.
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Make a rename durable, where the system lets a folder be flushed."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        return
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
