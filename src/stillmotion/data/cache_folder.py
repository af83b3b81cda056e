"""The folder of a latent cache: its header, a file per clip, and how both are written so that nothing is ever half there.

    cache.json                              what the cache was made of and with: the header
    clips/00000/00000042.safetensors        one clip: `mean` and `logvar`, each (frames, channels, rows, columns)
    clips/00000/00000043.broken             a clip that could not be read, and why
    index.jsonl                             a line per clip, written when the last clip is there

A clip's file is its own done-marker: it is written beside, flushed and renamed into place. So a killed run loses the clip
that it was at and no other, a run again does what is left, and processes that meet in one folder cannot harm each other.

Clips are not packed into larger shards: 120 frames of 256x256 have 2 MB of moments in half precision, about what their
video had, so files are not small; and whoever reads 16 frames opens one file and reads one stretch of it.
"""

import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from stillmotion.data.sampling import FITTING, Size, nearest_size
from stillmotion.data.sources.quarantine import too_many
from stillmotion.errors import FileError, MismatchError

VERSION = 1
"""Of the layout of a cache."""

HEADER, INDEX, CLIPS = "cache.json", "index.jsonl", "clips"
_PER_FOLDER = 1000
_DEAD_AFTER = 600.0  # seconds; a file takes well under one to write, so an older unfinished one has lost its writer


@dataclass(frozen=True, kw_only=True)
class CacheHeader:
    """What a latent cache was made with. Training with anything else would be wrong, so it must be equal."""

    vae: str
    """The fingerprint of the VAE's encoder; see `vae_fingerprint`."""
    scaling_factor: float
    """What latents are multiplied by behind the posterior; the cache itself is not scaled."""
    width: int
    """Width of the pictures in pixels, of which the latents have an eighth."""
    height: int
    """Height of the pictures in pixels."""
    dtype: str
    """How numbers are held: float16, bfloat16 or float32."""
    source: str
    """The fingerprint of the clips and their captions."""
    recipe: str = FITTING
    """How pictures came to that size."""
    keep_every: int = 1
    """Of how many source frames one is cached."""
    buckets: tuple[Size, ...] = ()
    """The sizes that clips were fitted to, the nearest in aspect; empty for one size."""
    version: int = VERSION
    """Of the layout."""

    def size_of(self, width: int, height: int) -> Size:
        """Return the size that a clip of `width` x `height` is fitted to."""
        return nearest_size(width, height, self.buckets) if self.buckets else (self.width, self.height)


_MEANING = {
    "vae": "it was encoded by another VAE",
    "scaling_factor": "its VAE scales latents otherwise",
    "width": "its pictures have another width",
    "height": "its pictures have another height",
    "dtype": "its numbers are held otherwise",
    "source": "it was made of other clips or captions",
    "recipe": "its pictures were resized otherwise",
    "keep_every": "other frames of each clip are in it",
    "buckets": "its pictures have other sizes",
    "version": "another version of Stillmotion made it",
}


@dataclass(frozen=True)
class CachedClip:
    """A line of the index."""

    number: int
    """Its place in the source."""
    key: str
    caption: str
    num_frames: int
    fps: float
    width: int
    """In pixels."""
    height: int
    """In pixels."""


def check_header(folder: Path, found: CacheHeader, expected: CacheHeader) -> None:
    """Raise `MismatchError` that names every field in which the cache at `folder` is not what was expected."""
    wrong = [name for name in _MEANING if getattr(found, name) != getattr(expected, name)]
    if not wrong:
        return
    lines = [
        f"  {name}: {_MEANING[name]} ({_short(getattr(found, name))}, expected {_short(getattr(expected, name))})"
        for name in wrong
    ]
    raise MismatchError(
        "\n".join([f"{folder}: this latent cache is of another kind and is not used:", *lines])
        + "\nPrepare the clips into another folder, or delete this one."
    )


def read_header(folder: Path) -> tuple[CacheHeader, int]:
    """Return a cache's header and how many clips its source has; raise `FileError` if there is no cache."""
    path = folder / HEADER
    if not folder.is_dir():
        raise FileError(f"{folder}: there is no such folder; make a latent cache by `stillmotion data prepare`.")
    if not path.is_file():
        raise FileError(
            f"{folder}: holds no latent cache ({HEADER} is missing); make one by `stillmotion data prepare`."
        )
    try:
        loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        num_clips = int(loaded.pop("num_clips"))
        known = {field.name: loaded[field.name] for field in fields(CacheHeader)}
        sizes = tuple((int(width), int(height)) for width, height in known.pop("buckets"))
        header = CacheHeader(**known, buckets=sizes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{path}: the header is damaged ({error}); delete the folder and prepare again.") from error
    if header.version != VERSION:
        raise MismatchError(
            f"{folder}: the latent cache has version {header.version}, this Stillmotion reads {VERSION}; prepare again."
        )
    return header, num_clips


def begin(folder: Path, header: CacheHeader, num_clips: int) -> None:
    """Make the folder of a cache, or go on with the one that is there.

    Raises `MismatchError` for a cache of another kind, `FileError` for a folder that holds something else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise FileError(f"{folder}: cannot be made: {error.strerror}.") from error
    if held and HEADER not in held and not (folder / HEADER).exists():
        raise FileError(f"{folder}: holds other files ({min(held)}, …); name an empty or a new folder.")
    if HEADER not in held:
        text = json.dumps({**asdict(header), "num_clips": num_clips}, indent=1) + "\n"
        write_whole(folder / HEADER, text.encode(), replace=False)
    found, _ = read_header(folder)
    check_header(folder, found, header)
    _remove_dead(folder)


def clip_path(folder: Path, number: int) -> Path:
    """Return the file of a clip by its place in the source."""
    return folder / CLIPS / f"{number // _PER_FOLDER:05d}" / f"{number:08d}.safetensors"


def broken_path(folder: Path, number: int) -> Path:
    """Return the file that says why a clip is not in the cache."""
    return clip_path(folder, number).with_suffix(".broken")


def mark_broken(folder: Path, number: int, reason: str) -> None:
    """Write down that a clip could not be read, so that the cache can be complete without it."""
    write_whole(broken_path(folder, number), json.dumps(reason, ensure_ascii=False).encode())


def write_whole(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file that is either whole or not there; without `replace` one that is there is kept.

    Raises `FileError` where the disk refuses, leaving nothing of it.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if replace:
            os.replace(beside, path)
        else:
            _move_if_new(beside, path)
    except OSError as error:
        raise FileError(
            f"{path}: cannot be written: {error.strerror or error}. The clips that are finished are kept: make room and "
            "run the same command again."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def finish(folder: Path, num_clips: int) -> bool:
    """Write the index if every clip is there or known to be broken; return whether it is.

    Raises `FileError` if too many clips are broken, or all.
    """
    if not all(_is_settled(folder, number) for number in range(num_clips)):
        return False
    lines = [json.dumps(asdict(clip), ensure_ascii=False) for clip in _clips_on_disk(folder, num_clips)]
    broken = num_clips - len(lines)
    if too_many(broken, num_clips) or not lines:
        raise FileError(
            f"{folder}: {broken} of the {num_clips} clips could not be read, which is too many for a cache; the "
            "quarantine list there says why. Mend or remove them, and prepare again."
        )
    write_whole(folder / INDEX, "".join(f"{line}\n" for line in lines).encode())
    return True


def read_index(folder: Path, num_clips: int) -> list[CachedClip]:
    """Return the clips of a cache in the order of their source; raise `FileError` if it is not complete or damaged."""
    path = folder / INDEX
    if not path.is_file() and not finish(folder, num_clips):
        there = sum(1 for number in range(num_clips) if _is_settled(folder, number))
        raise FileError(
            f"{folder}: the latent cache is not complete: {there} of {num_clips} clips are prepared. Run `stillmotion "
            "data prepare` again with the same arguments; it does what is left."
        )
    try:
        with path.open(encoding="utf-8") as stream:
            return [CachedClip(**json.loads(line)) for line in stream]
    except (OSError, ValueError, TypeError) as error:
        raise FileError(f"{path}: the index is damaged ({error}); delete it and open the cache again.") from error


def _clips_on_disk(folder: Path, num_clips: int) -> Iterator[CachedClip]:
    for number in range(num_clips):
        path = clip_path(folder, number)
        if not path.exists():
            continue
        try:
            with safe_open(str(path), framework="pt") as file:
                told, shape = json.loads((file.metadata() or {})["clip"]), file.get_slice("mean").get_shape()
            yield CachedClip(number=number, num_frames=shape[0], **told)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> FileError:
    """Return the error for a clip's file that cannot be read."""
    return FileError(
        f"{path}: the cached clip is damaged or gone ({error}). Delete the file, if it is there, and {INDEX}; then run "
        "`stillmotion data prepare` again."
    )


def _is_settled(folder: Path, number: int) -> bool:
    return clip_path(folder, number).exists() or broken_path(folder, number).exists()


def _move_if_new(beside: Path, path: Path) -> None:
    try:
        os.link(beside, path)  # unlike a rename, a link never replaces
    except FileExistsError:
        return
    except OSError:  # a disk without hard links
        if not path.exists():
            os.replace(beside, path)


def _remove_dead(folder: Path) -> None:
    """Remove what killed runs left unfinished, not what another process is just writing."""
    for leftover in [*folder.glob(".*.partial"), *folder.glob(f"{CLIPS}/*/.*.partial")]:
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _DEAD_AFTER:
                leftover.unlink()


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text
