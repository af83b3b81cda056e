"""What kind of container a file is, told by its first and last bytes, never by its name.

Three containers hold weights that Stillmotion reads: safetensors, the zip that `torch.save` writes, and the pickle that
older versions of it wrote. `container_of` answers which one a file is; anything else is refused here, before a loader
has touched it, by the name of what it really is.
"""

import difflib
import json
import os
import pickletools
import zipfile
from pathlib import Path
from typing import Any, Literal

from stillmotion.errors import FileError

Container = Literal["safetensors", "torch_zip", "torch_pickle"]
"""A container that holds weights and can be read."""

LARGEST_HEADER = 100_000_000
"""Bytes that a safetensors header may have at most; the limit of the safetensors library itself."""

SAMPLE_BYTES = 4096

ARCHIVES: dict[bytes, str] = {
    b"GGUF": "a GGUF file, which holds quantised weights for llama.cpp and its kin",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"BZh": "a bzip2 archive; unpack it first",
    b"\xfd7zXZ\x00": "an xz archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive; unpack it first",
    b"\x89HDF": "an HDF5 (Keras) file, which holds no PyTorch weights",
    b"\x93NUMPY": "a NumPy array, which holds no named weights",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"RIFF": "a WebP picture or an AVI video",
    b"%PDF": "a PDF document",
}
"""First bytes of what people take for a checkpoint, and what it is."""


def container_of(path: Path) -> Container:
    """Return which container the file at `path` is.

    Raises:
        FileError: It is none that holds weights; the message says what it is instead: missing, a folder, empty, a web
            page, a git-LFS pointer, text, an archive, or a container that was cut short.
    """
    _require_readable_file(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        sample = file.read(SAMPLE_BYTES)
    if not size:
        raise FileError(f"{path} is empty (0 bytes): the download or the copy never began. Fetch it again.")
    if _looks_like_safetensors(sample):
        safetensors_header(path)
        return "safetensors"
    if sample.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        _require_torch_zip(path)
        return "torch_zip"
    if sample[:1] == b"\x80" or _is_text_pickle(sample, path):
        return "torch_pickle"
    other = _name_other(sample)
    if other:
        raise FileError(f"{path} is {other}.")
    raise FileError(
        f"{path} holds no weights that can be read: its {size:,} bytes begin with {sample[:8].hex(' ')}, which is "
        "neither safetensors nor a PyTorch checkpoint. Fetch it again, or check which program wrote it."
    )


def safetensors_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file, checked against the file's length; nothing of its tensors is read.

    Raises:
        FileError: The header is cut short or is not JSON, or the file is shorter or longer than its header says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(min(length, LARGEST_HEADER))
    if size < 8 + length:
        raise FileError(
            f"{path} is a safetensors file that was cut short: its header alone says {length + 8:,} bytes, "
            f"the file has {size:,}. Fetch it again."
        )
    try:
        header = json.loads(text)
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        end = max((int(entry["data_offsets"][1]) for entry in entries), default=0)
    except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise FileError(f"{path} is a safetensors file whose header is damaged ({error}). Fetch it again.") from error
    expected = 8 + length + end
    if size < expected:
        raise FileError(
            f"{path} is a safetensors file that was cut short: its header says {expected:,} bytes, the file has "
            f"{size:,} ({size / expected:.0%}). Fetch it again."
        )
    if size > expected:
        raise FileError(
            f"{path} is a damaged safetensors file: its header says {expected:,} bytes, the file has {size:,}. "
            "Fetch it again."
        )
    if not entries:
        raise FileError(f"{path} is a safetensors file without a single tensor.")
    return dict(header)


def _require_readable_file(path: Path) -> None:
    """Raise `FileError` unless `path` is a regular file that may be read; suggest the nearest name if it is missing."""
    if path.is_symlink() and not path.exists():
        raise FileError(f"{path} is a link to {path.readlink()}, which does not exist.")
    if not path.exists():
        raise FileError(f"{path} does not exist.{_nearest_name(path)}")
    if path.is_dir():
        raise FileError(f"{path} is a folder; a file was expected.")
    if not path.is_file():
        raise FileError(f"{path} is not a regular file.")
    if not os.access(path, os.R_OK):
        raise FileError(f"{path} may not be read: permission denied.")


def _nearest_name(path: Path) -> str:
    """Return a hint that names the most similar file of the same folder, or says that the folder is missing too."""
    if not path.parent.is_dir():
        return f" Nor does its folder {path.parent}."
    names = [entry.name for entry in path.parent.iterdir()]
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    return f" Did you mean {close[0]}?" if close else ""


def _looks_like_safetensors(sample: bytes) -> bool:
    """Return whether the bytes begin as safetensors do: a length of eight bytes, then a JSON object."""
    return sample[8:9] == b"{" and int.from_bytes(sample[:8], "little") <= LARGEST_HEADER


def _require_torch_zip(path: Path) -> None:
    """Raise `FileError` unless the zip at `path` is whole and was written by `torch.save`."""
    if not zipfile.is_zipfile(path):
        raise FileError(
            f"{path} is a PyTorch checkpoint or another zip that was cut short at {path.stat().st_size:,} bytes: the "
            "table of contents at its end is missing. Fetch it again."
        )
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    leaves = {name.rsplit("/", 1)[-1] for name in names}
    if "constants.pkl" in leaves:
        raise FileError(f"{path} is a TorchScript program, not a file of weights.")
    if "data.pkl" not in leaves:
        inside = ", ".join(names[:3]) or "nothing"
        raise FileError(f"{path} is a zip archive that holds {inside}; unpack it first.")


def _is_text_pickle(sample: bytes, path: Path) -> bool:
    """Return whether the file is a pickle of protocol 0 or 1, which begins without a mark and can look like text."""
    if sample[:1] not in (b"(", b"c", b"]", b"}") or path.stat().st_size > LARGEST_HEADER:
        return False
    try:
        return any(opcode.name == "STOP" for opcode, _, _ in pickletools.genops(path.read_bytes()))
    except (ValueError, NotImplementedError):
        return False


def _name_other(sample: bytes) -> str | None:
    """Return what the bytes are, as the end of a sentence, if they are of a kind that is often taken for weights."""
    for magic, name in ARCHIVES.items():
        if sample.startswith(magic):
            return name
    if sample[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    if sample[4:8] == b"ftyp":
        return "an MP4 video or another media file"
    if not sample.strip(b"\x00"):
        return "filled with zeros: a download that was reserved on disk but never written. Fetch it again"
    return _name_text(sample)


def _name_text(sample: bytes) -> str | None:
    """Return which text the bytes are, or None if they are not text."""
    try:
        text = sample.decode("utf-8", errors="strict" if len(sample) < SAMPLE_BYTES else "ignore")
    except UnicodeDecodeError:
        return None
    text = text.lstrip("\ufeff \t\r\n")
    if any(ord(letter) < 32 and letter not in "\t\r\n\f" for letter in text):
        return None
    if text.startswith("version https://git-lfs"):
        size = next((line.split()[1] for line in text.splitlines() if line.startswith("size ")), "?")
        return (
            f"a git-LFS pointer: a few lines of text in place of the real file of {size} bytes. "
            "Run `git lfs pull` in its folder, or download the file itself"
        )
    start = text[:300].lower()
    if "<html" in start or start.startswith(("<!doctype html", "<head")):
        return (
            "an HTML page saved under the name of a checkpoint, often the page about the file or a request to log in. "
            'Download the file itself (on the Hugging Face Hub: the "resolve" address, not "blob")'
        )
    kind = {"<": "an XML message", "{": "JSON text", "[": "JSON text"}.get(text[:1])
    return (
        f"{kind}, perhaps a config or an error of the server: {text[:120]!r}" if kind else f"plain text: {text[:80]!r}"
    )
