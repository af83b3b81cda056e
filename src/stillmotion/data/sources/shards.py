"""WebDataset's tar shards: `clip.mp4` and `clip.txt` or `clip.json` side by side in a tar, read where they lie."""

import glob
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from stillmotion.data.sources.clip import ClipItem
from stillmotion.data.sources.listed import ListedClip
from stillmotion.data.sources.listing import CLIPS
from stillmotion.data.sources.place import Place
from stillmotion.errors import FileError

_BRACES = re.compile(r"\{([^{}]*)\}")
_LONGEST_TEXT = 1 << 20  # bytes; what is longer is no caption
_MOST_SHARDS = 1_000_000
_CAPTIONS = ("caption", "text", "prompt", "name")  # of a JSON, the first that is there


def shards_of(pattern: str) -> list[Path]:
    """Return the tars that a pattern names: `clips-{000..012}.tar`, `{a,b}.tar`, `*.tar`, or one path.

    Raises `FileError` for one that is not there: a range says which there should be.
    """
    names = list(_expanded(pattern))
    found: list[Path] = []
    for name in names:
        # `glob` rather than `Path.glob`: stars may stand in the folders' names too.
        matches = sorted(glob.glob(name)) if glob.has_magic(name) and not Path(name).exists() else [name]  # noqa: PTH207
        found += [Path(match) for match in matches]
    missing = [path for path in found if not path.is_file()]
    if missing:
        raise FileError(
            f"{missing[0]}: there is no such tar; {pattern} names {len(found)}, {len(missing)} are missing."
        )
    if not found:
        raise FileError(f"{pattern}: no tar has such a name.")
    return found


def clips_of_shards(shards: list[Path]) -> Iterator[ListedClip]:
    """Yield the clips of the tars in their order; raise `FileError` for a tar that is compressed, damaged or empty."""
    for shard in shards:
        found = False
        for clip in _clips_of_shard(shard):
            found = True
            yield clip
        if not found:
            raise FileError(f"{shard}: expected clips ({', '.join(CLIPS)}), but the tar holds none.")


def _clips_of_shard(shard: Path) -> Iterator[ListedClip]:
    clips: list[tuple[str, Place]] = []
    captions: dict[str, str] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                stem, suffix = _split(member.name)
                if not member.isreg() or Path(member.name).name.startswith("."):
                    continue
                if suffix in CLIPS:
                    place = Place(shard, member.name, member.offset_data, member.size)
                    clips.append((stem, place))
                elif suffix in (".txt", ".json"):
                    captions[stem] = _caption(archive, member, f"{shard}: {member.name}") or captions.get(stem, "")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise FileError(
            f"{shard}: expected a tar that is not compressed, but it is none or damaged: {error}."
        ) from error
    for stem, place in clips:
        yield ListedClip(ClipItem(f"{shard.name}/{place.member}", captions.get(stem, "")), place)


def _caption(archive: tarfile.TarFile, member: tarfile.TarInfo, where: str) -> str:
    if member.size > _LONGEST_TEXT:
        raise FileError(f"{where}: expected a caption, but the file has {member.size:,} bytes.")
    stream = archive.extractfile(member)
    content = stream.read() if stream else b""
    try:
        text = content.decode("utf-8-sig")
        if member.name.endswith(".json"):
            loaded = json.loads(text)
            values = loaded if isinstance(loaded, dict) else {}
            text = next((value for name in _CAPTIONS if isinstance(value := values.get(name), str)), "")
    except (ValueError, RecursionError) as error:
        raise FileError(f"{where}: expected a caption, but it cannot be read: {error}.") from error
    return " ".join(text.split())


def _split(name: str) -> tuple[str, str]:
    """Return a member's name up to the first dot behind its folders, as WebDataset groups them, and its ending."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0], Path(last).suffix.lower()


def _expanded(pattern: str) -> Iterator[str]:
    """Yield the pattern with its braces written out: `{08..10}` counts in as many digits, `{a,b}` chooses."""
    found = _BRACES.search(pattern)
    if not found:
        yield pattern
        return
    counted = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if counted:
        first, last = int(counted[1]), int(counted[2])
        if not 0 <= last - first < _MOST_SHARDS:
            raise FileError(f"{pattern}: expected a range from the lower to the higher number, got {found[0]}.")
        choices = [f"{number:0{len(counted[1])}d}" for number in range(first, last + 1)]
    else:
        choices = found[1].split(",")
    for choice in choices:
        yield from _expanded(pattern[: found.start()] + choice + pattern[found.end() :])
