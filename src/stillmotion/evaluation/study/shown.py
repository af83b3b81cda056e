"""Files as raters get them: under names that say nothing, and without the record of how they were made."""

import io
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from stillmotion.evaluation.players import without_record
from stillmotion.evaluation.references import read_picture
from stillmotion.evaluation.study.plan import Study

LARGEST_REFERENCE = 512


@dataclass(frozen=True)
class Shown:
    """One file that the page may ask for."""

    content: bytes
    """Its bytes."""
    kind: str
    """Its media type."""


class Gallery:
    """Every clip and picture of a study by an address drawn at random, so that it does not tell the method.

    All clips are written anew in one format: neither metadata nor the format say where a clip comes from.
    """

    def __init__(self, study: Study, folder: Path, progress: Callable[[int, int], None] | None = None) -> None:
        self._files: dict[str, Shown] = {}
        self._clips: dict[tuple[str, str], str] = {}
        self._pictures: dict[Path, str] = {}
        total, done = len(study.items) * len(study.methods), 0
        for item in study.items:
            for method, path in item.clips.items():
                target = without_record(path, folder / f"{secrets.token_hex(8)}.webm")
                self._clips[item.name, method] = self._keep(target.read_bytes(), "video/webm")
                target.unlink()
                done += 1
                if progress is not None:
                    progress(done, total)
            for picture in item.references:
                if picture not in self._pictures:
                    self._pictures[picture] = self._keep(_png(picture), "image/png")

    def clip(self, item: str, method: str) -> str:
        """Return the address of a method's clip."""
        return self._clips[item, method]

    def picture(self, path: Path) -> str:
        """Return the address of a reference picture."""
        return self._pictures[path]

    def get(self, address: str) -> Shown | None:
        """Return the file of an address; None where there is none. No path is ever made of what was asked for."""
        return self._files.get(address)

    def _keep(self, content: bytes, kind: str) -> str:
        address = f"/shown/{secrets.token_urlsafe(12)}"
        self._files[address] = Shown(content, kind)
        return address


def _png(file: Path) -> bytes:
    picture = Image.fromarray(read_picture(file))
    picture.thumbnail((LARGEST_REFERENCE, LARGEST_REFERENCE))
    stream = io.BytesIO()
    picture.save(stream, "png")
    return stream.getvalue()
