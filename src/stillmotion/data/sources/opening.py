"""One door to every kind of data set: what it is, is told by what is there."""

import difflib
import glob
import os
from pathlib import Path

from stillmotion.data.sources.listed import ListedSource
from stillmotion.data.sources.listing import (
    METADATA,
    clips_in,
    clips_of_metadata,
    clips_of_webvid,
    columns_of,
    is_clip,
    one_clip,
)
from stillmotion.data.sources.shards import clips_of_shards, shards_of
from stillmotion.errors import FileError

_KINDS = (
    "a folder of clips, a CSV of videoid and name, a folder with metadata.csv or metadata.jsonl, or tar shards such as "
    "clips-{000..009}.tar"
)


def open_source(path: str | os.PathLike[str], *, video_folder: str | os.PathLike[str] | None = None) -> ListedSource:
    """Return the clips at `path`: a folder, a table, tar shards, or one clip.

    Args:
        path: A folder of clips with a text beside each; a folder with `metadata.csv` or `metadata.jsonl` (`file_name`,
            `text`), or that table itself; a CSV of `videoid`, `name` and perhaps `page_dir`; tar shards, as one path, a
            folder, or a pattern in braces or stars; or a single clip.
        video_folder: Where the files of a CSV of videoids lie; beside the CSV by default.

    Raises:
        FileError: There is nothing of the kind, a table lacks a column, or not a single clip is there. No clip is
            opened yet.
    """
    name = os.fspath(path)
    place = Path(name).expanduser()
    if video_folder is not None and place.suffix.lower() != ".csv":
        raise FileError(f"video_folder: it is for a CSV of videoids, but {name} is none.")
    if place.is_dir():
        return _open_folder(name, place)
    suffix = place.suffix.lower()
    if suffix == ".tar" or (not place.exists() and ("{" in name or glob.has_magic(name))):
        return ListedSource(name, "shards", clips_of_shards(shards_of(str(place))))
    if not place.exists():
        raise FileError(f"{name}: there is no such file or folder{_nearest(place)}; expected {_KINDS}.")
    if suffix == ".csv":
        return _open_csv(name, place, None if video_folder is None else Path(video_folder).expanduser())
    if suffix == ".jsonl":
        return ListedSource(name, "metadata", clips_of_metadata(place))
    if is_clip(place):
        return ListedSource(name, "folder", [one_clip(place)])
    raise FileError(f"{name}: expected {_KINDS}, got a file that ends in {suffix or 'nothing'}.")


def _open_folder(name: str, folder: Path) -> ListedSource:
    for table in METADATA:
        if (folder / table).is_file():
            return ListedSource(name, "metadata", clips_of_metadata(folder / table))
    clips = list(clips_in(folder))
    shards = sorted(folder.glob("*.tar"))
    if shards and not clips:
        return ListedSource(name, "shards", clips_of_shards(shards))
    if not clips:
        held = sorted(path.name for path in folder.iterdir())
        what = f"holds no clips, only {', '.join(held[:3])}{' …' if len(held) > 3 else ''}" if held else "is empty"
        raise FileError(f"{name}: the folder {what}; expected {_KINDS}.")
    return ListedSource(name, "folder", clips)


def _open_csv(name: str, table: Path, video_folder: Path | None) -> ListedSource:
    columns = columns_of(table)
    if "file_name" in columns and "videoid" not in columns:
        if video_folder is not None:
            raise FileError(f"video_folder: {name} names files from its own folder on; leave it out.")
        return ListedSource(name, "metadata", clips_of_metadata(table))
    return ListedSource(name, "webvid", clips_of_webvid(table, video_folder or table.parent))


def _nearest(path: Path) -> str:
    """Return "; the nearest is …" of the names beside a path that does not exist, empty if none is near."""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    return f" (the nearest name there is {near[0]})" if near else ""
