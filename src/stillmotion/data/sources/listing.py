"""Lists of clips out of folders and tables: WebVid's CSV, and the metadata files of Hugging Face's videofolder."""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from stillmotion.data.sources.clip import ClipItem
from stillmotion.data.sources.listed import ListedClip
from stillmotion.data.sources.picking import STILLS
from stillmotion.data.sources.place import Place
from stillmotion.errors import FileError

CLIPS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v", ".mpg", ".mpeg", ".gif")
"""Endings of clips; a WebP is one if it moves."""

METADATA = ("metadata.csv", "metadata.jsonl")
"""What Hugging Face's videofolder calls its table."""

_TEXT_COLUMNS = ("text", "caption")
_LONGEST_TEXT = 1 << 20  # bytes; what is longer is no caption
_MOVES = 0x02  # the flag of an animated WebP


def clips_in(folder: Path) -> Iterator[ListedClip]:
    """Yield the clips of a folder and of those inside it, by name: clip files, folders of frames, captioned pictures.

    The caption of `walk.mp4`, and of a folder of frames called `walk`, is the text of `walk.txt` beside it.
    """
    seen: set[Path] = set()
    for found, folders, names in os.walk(folder, onerror=_cannot_list, followlinks=True):
        here, shown = Path(found), sorted(name for name in names if not name.startswith("."))
        seen.add(here.resolve())
        # A link to a folder above would lead in circles.
        folders[:] = sorted(name for name in folders if name[0] != "." and (here / name).resolve() not in seen)
        paths = [here / name for name in shown]
        clips = [path for path in paths if is_clip(path)]
        stills = [path for path in paths if path.suffix.lower() in STILLS and path.with_suffix(".txt").is_file()]
        if not clips and not stills and any(path.suffix.lower() in (*STILLS, ".webp") for path in paths):
            clips = [here]
        for path in sorted({*clips, *stills}):
            key = path.relative_to(folder).as_posix()
            yield ListedClip(ClipItem(key if key != "." else path.resolve().name, _caption_beside(path)), Place(path))


def _cannot_list(error: OSError) -> None:
    raise FileError(f"{error.filename}: the folder cannot be read: {error.strerror}.") from error


def one_clip(path: Path) -> ListedClip:
    """Return a single file as a clip, with the text beside it."""
    return ListedClip(ClipItem(path.name, _caption_beside(path)), Place(path))


def is_clip(path: Path) -> bool:
    """Return whether a file is a clip by its ending, or a WebP that moves."""
    if path.suffix.lower() != ".webp":
        return path.suffix.lower() in CLIPS
    with path.open("rb") as stream:
        head = stream.read(21)
    return head[12:16] == b"VP8X" and len(head) == 21 and bool(head[20] & _MOVES)


def clips_of_webvid(table: Path, video_folder: Path) -> Iterator[ListedClip]:
    """Yield the clips of a CSV with the columns videoid, name and perhaps page_dir; the files lie in `video_folder`.

    A file is `{videoid}.mp4`, there or in `page_dir`. Raises `FileError` where the columns are not there, or where not
    one of the files is.
    """
    if not video_folder.is_dir():
        raise FileError(f"{video_folder}: there is no such folder; it should hold the clips that {table} names.")
    missing, found = [], False
    for number, row in _rows_of_csv(table, ("videoid", "name")):
        place = _inside(video_folder, f"{row['videoid']}.mp4", f"{table}, row {number}")
        if row.get("page_dir") and not place.exists():
            deeper = f"{row['page_dir']}/{row['videoid']}.mp4"
            place = _inside(video_folder, deeper, f"{table}, row {number}")
        found = found or place.exists()
        missing += [place] if not found else []
        yield ListedClip(ClipItem(row["videoid"], _one_line(row["name"])), Place(place))
    if missing and not found:
        raise FileError(
            f"{video_folder}: holds none of the {len(missing)} clips that {table} names; the first would be {missing[0]}."
        )


def clips_of_metadata(table: Path) -> Iterator[ListedClip]:
    """Yield the clips of a `metadata.csv` or `metadata.jsonl`: `file_name`, from its own folder on, and `text`.

    `caption` stands in for `text`. Raises as `clips_of_webvid`.
    """
    rows = _rows_of_jsonl(table) if table.suffix.lower() == ".jsonl" else _rows_of_csv(table, ("file_name",))
    missing, found = [], False
    for number, row in rows:
        column = next((name for name in _TEXT_COLUMNS if name in row), None)
        if column is None or "file_name" not in row:
            raise FileError(_no_columns(table, ("file_name", "text"), list(row), number))
        place = _inside(table.parent, row["file_name"], f"{table}, row {number}")
        found = found or place.exists()
        missing += [place] if not found else []
        yield ListedClip(ClipItem(row["file_name"], _one_line(row[column])), Place(place))
    if missing and not found:
        raise FileError(f"{table}: not one of its {len(missing)} files is there; the first would be {missing[0]}.")


def columns_of(table: Path) -> list[str]:
    """Return the names of a CSV's columns; raise `FileError` if it is no text or empty."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            return next(csv.reader(stream), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{table}: expected a CSV table, but it cannot be read: {error}.") from error


def _rows_of_csv(table: Path, wanted: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield number (from 1, the header not counted) and cells of each row."""
    columns = columns_of(table)
    if any(name not in columns for name in wanted):
        raise FileError(_no_columns(table, wanted, columns))
    count = 0
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            for count, row in enumerate(csv.DictReader(stream), 1):
                cells = {name: value or "" for name, value in row.items() if isinstance(name, str)}
                if not cells[wanted[0]]:
                    raise FileError(f"{table}, row {count}: the column {wanted[0]} is empty.")
                yield count, cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{table}: expected a CSV table, but it cannot be read behind row {count}: {error}.") from error
    if count == 0:
        raise FileError(f"{table}: expected a row per clip, but it has none below its header.")


def _rows_of_jsonl(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield number (from 1) and values of each line."""
    count = 0
    try:
        with table.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                loaded = json.loads(line)
                count += 1
                # Any other line has no columns, which the caller names.
                values = loaded if isinstance(loaded, dict) else {}
                yield number, {key: value for key, value in values.items() if isinstance(value, str)}
    except FileError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{table}: expected a JSON object per line, but it cannot be read: {error}.") from error
    if count == 0:
        raise FileError(f"{table}: expected a line per clip, but it has none.")


def _no_columns(table: Path, wanted: tuple[str, ...], columns: list[str], number: int = 0) -> str:
    where = f"{table}, row {number}" if number else str(table)
    has = ", ".join(columns) or "none"
    return f"{where}: expected the columns {' and '.join(wanted)}, but it has: {has}."


def _inside(folder: Path, name: str, where: str) -> Path:
    """Return the path of a file that a table names; it must not lead out of the folder."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\0" in name:
        raise FileError(f"{where}: {name!r} leads out of {folder}; name files from that folder on.")
    return folder / relative


def _caption_beside(path: Path) -> str:
    """Return the text beside a clip; empty if there is none."""
    whole = path.resolve()  # the folder may have been called "."
    beside = whole.with_name(f"{whole.name}.txt") if path.is_dir() else path.with_suffix(".txt")
    return _one_line(_text_of(beside)) if beside.is_file() else ""


def _text_of(path: Path) -> str:
    try:
        if path.stat().st_size > _LONGEST_TEXT:
            raise FileError(f"{path}: expected a caption, but the file has {path.stat().st_size:,} bytes.")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: expected a caption in UTF-8, but it cannot be read: {error}.") from error


def _one_line(text: str) -> str:
    return " ".join(text.split())
