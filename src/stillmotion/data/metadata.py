"""The record that travels inside a media file: JSON in the comment field of each format.

Anyone can write these fields, so what is read is data and nothing else: of limited length, parsed as JSON, a mapping or
nothing. It is never a path to write to or code to run.
"""

import json
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
from PIL import Image

from stillmotion.data.folders import frame_files
from stillmotion.errors import FileError

KEY = "stillmotion"
_LONGEST = 1 << 20  # characters
_EXIF_POINTER, _USER_COMMENT = 0x8769, 0x9286  # tags of EXIF
_ASCII = b"ASCII\0\0\0"  # how a UserComment says that it is plain text
_VP8X_EXIF = 0x08  # the flag of a WebP that carries EXIF


def to_text(record: Mapping[str, Any]) -> str:
    """Return the record as one line of plain ASCII JSON, which every format's comment can hold."""
    return json.dumps({KEY: dict(record)}, ensure_ascii=True, separators=(",", ":"))


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the record inside a clip (mp4, webm, gif, webp, png, a folder of png frames); {} if it has none.

    What is returned is untrusted input. Raises `FileError` where the file is missing or no media file.
    """
    file = Path(path)
    if not file.exists():
        raise FileError(f"{path}: there is no such file.")
    if file.is_dir():
        file = frame_files(file)[0]
    try:
        text = _picture_text(file) if file.suffix.lower() in (".gif", ".webp", ".png") else _container_text(file)
    except (OSError, ValueError, SyntaxError, av.FFmpegError) as error:
        raise FileError(f"{path}: expected a clip, but it cannot be read as one: {error}.") from error
    return _record_of(text)


def add_to_gif(path: Path, record: Mapping[str, Any]) -> None:
    """Put the record into a finished GIF as a comment extension behind its colour table."""
    text = to_text(record).encode("ascii")
    blocks = b"".join(bytes([len(part)]) + part for part in (text[i : i + 255] for i in range(0, len(text), 255)))
    wider = path.with_name(path.name + "-with-comment")
    with path.open("rb") as old, wider.open("wb") as new:
        header = old.read(13)
        table = 3 << ((header[10] & 0x07) + 1) if header[10] & 0x80 else 0
        new.write(header + old.read(table) + b"\x21\xfe" + blocks + b"\0")
        shutil.copyfileobj(old, new)
    wider.replace(path)


def add_to_webp(path: Path, record: Mapping[str, Any], size: tuple[int, int]) -> None:
    """Put the record into a finished WebP of `size` (height, width) as the EXIF UserComment."""
    exif = Image.Exif()
    exif.get_ifd(_EXIF_POINTER)[_USER_COMMENT] = _ASCII + to_text(record).encode("ascii")
    payload = exif.tobytes().removeprefix(b"Exif\0\0")
    body = path.read_bytes()[12:] if path.read_bytes()[12:16] != b"VP8X" else b""
    with path.open("r+b") as file:
        if body:  # one still frame: the simple layout has no room for EXIF until it is extended
            extents = struct.pack("<I", size[1] - 1)[:3] + struct.pack("<I", size[0] - 1)[:3]
            file.seek(12)
            file.write(b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + extents + body)
        file.seek(20)
        flags = file.read(1)[0]
        file.seek(20)
        file.write(bytes([flags | _VP8X_EXIF]))
        file.seek(0, os.SEEK_END)
        file.write(b"EXIF" + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2))
        length = file.tell()
        file.seek(4)
        file.write(struct.pack("<I", length - 8))


def _picture_text(file: Path) -> str:
    with Image.open(file) as picture:
        if picture.format == "WEBP":
            found = picture.getexif().get_ifd(_EXIF_POINTER).get(_USER_COMMENT, b"")
        else:
            found = picture.info.get("comment" if picture.format == "GIF" else KEY, "")
    return found.removeprefix(_ASCII).decode("ascii", "replace") if isinstance(found, bytes) else str(found)


def _container_text(file: Path) -> str:
    with av.open(str(file), options={"protocol_whitelist": "file"}) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
    return tags.get("comment", "")


def _record_of(text: str) -> dict[str, Any]:
    if len(text) > _LONGEST:
        return {}
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError):
        return {}  # somebody else's comment
    record = loaded.get(KEY) if isinstance(loaded, dict) else None
    return record if isinstance(record, dict) else {}
