"""Which clips are meant: files, run folders, folders of frames, folders of clips and patterns, each clip with its prompt."""

import csv
import glob
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillmotion.data import ClipInfo, probe, read_metadata
from stillmotion.data.sources.listing import is_clip
from stillmotion.errors import FileError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
RUN_CLIPS = ("clip-frames", "clip.mp4", "clip.webm", "clip.webp", "clip.gif")
"""What a run calls its clip, the best of the same clip first."""
_LONGEST_TEXT = 1 << 20  # bytes; what is longer is no prompt and no record


@dataclass(frozen=True, kw_only=True)
class FoundClip:
    """One clip that is to be looked at."""

    name: str
    """The shortest end of its path that no other clip has, without its ending."""
    path: Path
    """The file, or the folder of frames."""
    info: ClipInfo
    """What it is."""
    prompt: str
    """What it should show; empty if nothing says it."""


def find_clips(
    said: Sequence[str], *, prompt: str | None = None, prompts: Mapping[str, str] | None = None
) -> list[FoundClip]:
    """Return every clip that is meant, once, in the order of `said` and by name within a folder.

    A prompt is `prompt`, else the one that `prompts` has for the file's path, name or stem, else the clip's own. Raises
    `FileError` for what does not exist, holds no clip, or is no clip.
    """
    places: dict[Path, Path] = {}  # what the clip is called after, by the clip
    for one in said:
        for called, path in _meant(one):
            places.setdefault(path, called)
    names = _short_names(list(places.values()))
    found = []
    for (path, called), name in zip(places.items(), names, strict=True):
        info = probe(path)  # before the prompt: it says best what is wrong
        listed = listed_prompt(prompts or {}, path, called)
        own = prompt if prompt is not None else listed if listed is not None else prompt_of(path)
        found.append(FoundClip(name=name, path=path, info=info, prompt=own))
    return found


def read_prompts(table: Path) -> dict[str, str]:
    """Return the prompt of each file out of a CSV with the columns `file` and `prompt`; raise `FileError` if it is none."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            if "file" not in columns or "prompt" not in columns:
                raise FileError(
                    f"{table}: expected the columns file and prompt, but it has: {', '.join(columns) or 'none'}."
                )
            return {row["file"]: " ".join((row["prompt"] or "").split()) for row in reader if row["file"]}
    except FileNotFoundError as error:
        raise FileError(f"{table}: there is no such file.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{table}: expected a CSV table, but it cannot be read: {error}.") from error


def listed_prompt(prompts: Mapping[str, str], path: Path, called: Path) -> str | None:
    """Return the prompt that a table has for a clip: by path, file name, stem, or the name of its run folder."""
    for key in (str(path), path.as_posix(), path.name, called.name, called.stem):
        if key in prompts:
            return prompts[key]
    return None


def prompt_of(path: Path) -> str:
    """Return what a clip's own run.json, metadata, or a text beside it says that it shows; empty if none does."""
    record = _record_beside(path) or read_metadata(path)
    config = record.get("config")
    said = config.get("prompt") if isinstance(config, dict) else None
    if isinstance(said, str) and said.strip():
        return " ".join(said.split())
    beside = path.with_name(f"{path.name}.txt") if path.is_dir() else path.with_suffix(".txt")
    if beside.is_file() and beside.stat().st_size < _LONGEST_TEXT:
        return " ".join(beside.read_text(encoding="utf-8-sig", errors="replace").split())
    return ""


def _record_beside(path: Path) -> dict[str, Any]:
    """Return the run.json beside a clip that is named as a run names its clip; {} if there is none that can be read."""
    file = path.with_name("run.json")
    if path.name not in RUN_CLIPS or not file.is_file() or file.stat().st_size > _LONGEST_TEXT:
        return {}
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _meant(said: str) -> Iterator[tuple[Path, Path]]:
    """Yield (what it is called after, the clip) for each clip that one argument means."""
    path = Path(said).expanduser()
    if not path.exists():
        if not glob.has_magic(said):
            raise FileError(f"{said}: there is no such file or folder.")
        matched = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  # the pattern may be absolute
        if not matched:
            raise FileError(f"{said}: no file matches the pattern.")
        found = [pair for match in matched for pair in _inside(Path(match))]
    else:
        found = list(_inside(path))
    if not found:
        raise FileError(f"{said}: expected clips (mp4, webm, gif, webp), run folders or frames, but it holds none.")
    yield from found


def _inside(path: Path) -> Iterator[tuple[Path, Path]]:
    if path.is_file():
        yield path, path
        return
    if (path / "run.json").is_file():
        whole = next((path / name for name in RUN_CLIPS if (path / name).exists()), None)
        if whole is not None:
            yield path, whole
            return
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    deeper = [pair for entry in entries if entry.is_dir() or is_clip(entry) for pair in _inside(entry)]
    if not deeper and any(entry.suffix.lower() in PICTURES for entry in entries):
        deeper = [(path, path)]
    yield from deeper


def _short_names(paths: Iterable[Path]) -> list[str]:
    """Return for each path its shortest end that no other has, without the ending of a file."""
    tails = [path.resolve().parts for path in paths]
    longest = max((len(parts) for parts in tails), default=0)
    names = [""] * len(tails)
    for depth in range(1, longest + 1):
        ends = ["/".join(parts[-depth:]) for parts in tails]
        counts = Counter(ends)
        for index, end in enumerate(ends):
            if not names[index] and counts[end] == 1:
                names[index] = end
    stems = [str(Path(name).with_suffix("")) if is_ended(name) else name for name in names]
    taken = Counter(stems)
    return [stem if taken[stem] == 1 else name for stem, name in zip(stems, names, strict=True)]


def is_ended(name: str) -> bool:
    """Return whether a name ends as a clip file does; a folder's name may have points in it."""
    return Path(name).suffix.lower() in (
        ".mp4",
        ".webm",
        ".gif",
        ".webp",
        ".mov",
        ".mkv",
        ".avi",
        ".m4v",
        ".mpg",
        ".mpeg",
    )
