"""Pictures as a source of clips of one frame: a folder, a table, one file, or pictures that the toyworld draws."""

import dataclasses
import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from stillmotion.data import ClipItem
from stillmotion.data.sources.clip import ClipSource
from stillmotion.data.sources.listed import ListedClip, ListedSource
from stillmotion.data.sources.listing import METADATA, clips_of_metadata, one_clip
from stillmotion.errors import ConfigError, FileError
from stillmotion.seeding import generator
from stillmotion.toyworld.language import STYLES
from stillmotion.training.drawn import NUM_FRAMES, DrawnFootage, drawn_footage

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
"""Endings of pictures."""

_PAPER = (255, 255, 255)  # what shows through where a picture is transparent
_KINDS = f"a folder of pictures ({', '.join(ending[1:] for ending in ENDINGS)}), or toyworld:COUNT:STYLE"
_DAMAGE = (OSError, ValueError, EOFError, SyntaxError, Image.DecompressionBombError)  # what Pillow raises

Picture = UInt8[np.ndarray, "height width 3"]


def read_picture(path: Path) -> Picture:
    """Return a picture as it is meant to be seen: turned upright as its EXIF says, in RGB, on white where transparent.

    Raises `FileError` where it is missing, empty, damaged or no picture.
    """
    if not path.is_file():
        raise FileError(f"{path}: there is no such picture.")
    if not path.stat().st_size:
        raise FileError(f"{path}: expected a picture, but the file is empty (0 bytes).")
    try:
        with Image.open(path) as opened:
            return np.asarray(_in_rgb(ImageOps.exif_transpose(opened)))
    except UnidentifiedImageError as error:
        raise FileError(f"{path}: expected a picture, but no format of pictures is like it.") from error
    except _DAMAGE as error:
        raise FileError(f"{path}: the picture is damaged ({error}); get the file again.") from error


def _in_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        grey = np.asarray(picture).astype(np.float64) / 257
        return Image.fromarray(grey.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if "A" in picture.getbands() or "transparency" in picture.info:
        seen = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, (*_PAPER, 255)), seen).convert("RGB")
    return picture.convert("RGB")


class Pictures:
    """Picture files as clips of one frame, each decoded once to see that it is whole."""

    def __init__(self, name: str, listed: Sequence[ListedClip]) -> None:
        self._source, self._places = ListedSource(name, "pictures", listed), [clip.place.path for clip in listed]

    @property
    def name(self) -> str:
        """Return what the user called them."""
        return self._source.name

    def __len__(self) -> int:
        return len(self._places)

    def item(self, index: int) -> ClipItem:
        """Return a picture's name and caption."""
        return self._source.item(index)

    def num_frames(self, index: int) -> int:
        """Return 1; raise `FileError` for a picture that cannot be decoded, so that it is set aside at the start."""
        read_picture(self._places[index])
        return 1

    def fps(self, index: int) -> float:  # noqa: ARG002  # it stands still
        """Return 1."""
        return 1.0

    def frames(self, index: int, positions: Sequence[int]) -> UInt8[np.ndarray, "frames height width 3"]:
        """Return the picture, as often as asked."""
        picture = read_picture(self._places[index])
        return np.stack([picture for _ in positions])

    def fingerprint(self) -> str:
        """Return a sha256 over names, captions and sizes of the files."""
        return self._source.fingerprint()


class DrawnPictures:
    """One moment of each of the toyworld's clips, drawn by chance from (seed, its number).

    `word` stands in for the name of the style in captions, where a new word is learnt for it.
    """

    def __init__(self, footage: DrawnFootage, *, seed: int, style: str | None, word: str | None) -> None:
        self.name = footage.name.replace("clips", "pictures")
        self._footage, self._seed = footage, seed
        self._words = (f"a {style} ", f"a {word} ") if style and word else ("", "")

    def __len__(self) -> int:
        return len(self._footage)

    def item(self, index: int) -> ClipItem:
        """Return the picture's name and caption."""
        item = self._footage.item(index)
        before, after = self._words
        return dataclasses.replace(item, caption=item.caption.replace(before, after, 1)) if before else item

    def num_frames(self, index: int) -> int:  # noqa: ARG002  # all have as many
        """Return 1."""
        return 1

    def fps(self, index: int) -> float:  # noqa: ARG002
        """Return 1."""
        return 1.0

    def frames(self, index: int, positions: Sequence[int]) -> UInt8[np.ndarray, "frames height width 3"]:
        """Draw the picture, as often as asked."""
        moment = int(torch.randint(NUM_FRAMES, (), generator=generator(self._seed, "toyworld picture", index)))
        return self._footage.frames(index, [moment for _ in positions])

    def fingerprint(self) -> str:
        """Return a digest of all that the pictures depend on."""
        return self._footage.fingerprint()


def open_pictures(said: str, *, seed: int, size: int, word: str | None = None) -> ClipSource:
    """Return the pictures at a path, or those that "toyworld", "toyworld:COUNT" or "toyworld:COUNT:STYLE" mean.

    Args:
        said: A folder, with texts beside the pictures or a `metadata.csv` or `metadata.jsonl`, such a table, or a picture.
        seed: Of drawn ones.
        size: The side of drawn ones in pixels.
        word: A new word that stands for the style of drawn ones.

    Raises:
        FileError: There is nothing of the kind; the message names what is there. No picture is opened yet.
        ConfigError: The toyworld has no such style, or the count is none.
    """
    style = (*said.split(":", 2), "", "")[2]
    if said.partition(":")[0] == "toyworld" and style and style not in STYLES and not Path(said).exists():
        raise ConfigError(f"pictures: the toyworld has no style {style!r}; expected {' or '.join(STYLES)}")
    drawn = drawn_footage(said, seed=seed, size=size)
    if drawn is not None:
        return DrawnPictures(drawn, seed=seed, style=style or None, word=word)
    path = Path(said).expanduser()
    if path.is_dir():
        return Pictures(said, _in_folder(said, path))
    if not path.exists():
        raise FileError(f"pictures: {said} does not exist{_nearest(path)}; expected {_KINDS}.")
    if path.name in METADATA:
        return Pictures(said, _of_table(path))
    if path.suffix.lower() in ENDINGS:
        return Pictures(said, [one_clip(path)])
    raise FileError(f"pictures: {said} is no picture by its ending; expected {_KINDS}.")


def _in_folder(said: str, folder: Path) -> list[ListedClip]:
    table = next((folder / name for name in METADATA if (folder / name).is_file()), None)
    if table is not None:
        return _of_table(table)
    found = [
        dataclasses.replace(clip, item=dataclasses.replace(clip.item, key=path.relative_to(folder).as_posix()))
        for path in _files(folder)
        if path.suffix.lower() in ENDINGS
        for clip in [one_clip(path)]
    ]
    if not found:
        held = sorted(path.name for path in folder.iterdir())
        what = f"holds no pictures, only {', '.join(held[:3])}{' …' if len(held) > 3 else ''}" if held else "is empty"
        raise FileError(f"pictures: the folder {said} {what}; expected {_KINDS}.")
    return found


def _of_table(table: Path) -> list[ListedClip]:
    return list(clips_of_metadata(table))


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and of those inside it, by name; hidden ones are left out."""
    for found, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        yield from (Path(found) / name for name in sorted(names) if name[0] != ".")


def _nearest(path: Path) -> str:
    """Return "; the nearest name there is …" for a mistyped one, empty where none is near."""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    return f" (the nearest name there is {near[0]})" if near else ""
