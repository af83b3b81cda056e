"""What steers a clip frame by frame: one picture, a folder of numbered pictures, or a video."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from stillmotion.data.conditions.pictures import Ground, is_picture, read_picture
from stillmotion.data.folders import frame_files
from stillmotion.data.sampling import fit
from stillmotion.data.sources.picking import STILLS, look, pick
from stillmotion.data.sources.place import Place
from stillmotion.errors import ConfigError, FileError


@dataclass(frozen=True, kw_only=True)
class Footage:
    """A source of frames, looked at but not read."""

    path: Path
    """The file or folder."""
    kind: Literal["picture", "folder", "video"]
    """What it is; a folder holds pictures, and the number in a file's name is that of the frame."""
    numbers: tuple[int, ...]
    """The numbers of its frames, ascending: from 0 on for a video, those of the files for a folder."""

    def every(self, num_frames: int) -> list[int]:
        """Return where the frames 0 … `num_frames` - 1 of a clip stand in it; one picture stands for all of them.

        A longer one is cut at its end. A folder that is numbered without a gap begins with its lowest number.

        Raises:
            FileError: It does not have so many frames, or lacks one of them.
        """
        if self.kind == "picture":
            return [0]
        if self.numbers[-1] - self.numbers[0] + 1 == len(self.numbers):
            if len(self.numbers) < num_frames:
                raise FileError(
                    f"{self.path} has {len(self.numbers)} frames, but the clip has {num_frames}; give a longer one, or "
                    f"ask for num_frames {len(self.numbers)}."
                )
            return list(range(num_frames))
        missing = [number for number in range(num_frames) if number not in self.numbers]
        if missing:
            raise FileError(
                f"{self.path} has no picture for {len(missing)} of the clip's {num_frames} frames, first {missing[0]}: a "
                "file's number is its frame's. Number them without a gap, or use a SparseCtrl, which takes single frames."
            )
        return [self.numbers.index(number) for number in range(num_frames)]

    def some(self, frames: Sequence[int], num_frames: int) -> dict[int, int]:
        """Return which frames of a clip it has pictures for, ascending, each with where that picture stands in it.

        `frames` says which; negative ones count from the clip's end. Without it a picture is frame 0, a folder's files
        are the frames of their numbers, and a video has all. A folder that has none of those numbers, but as many files
        as there are `frames`, gives them in order; one picture stands at all of them.

        Raises:
            ConfigError: A frame is beyond the clip's end or said twice.
            FileError: It has no picture for a frame.
        """
        if not frames and self.kind != "picture":
            wanted = list(self.numbers if self.kind == "folder" else range(min(num_frames, len(self.numbers))))
        else:
            wanted = [frame + num_frames if frame < 0 else frame for frame in frames or (0,)]
        wrong = [frame for frame in wanted if not 0 <= frame < num_frames]
        if wrong:
            raise ConfigError(
                f"frames: {wrong[0]} is not in the clip; it has {num_frames} frames, 0 to {num_frames - 1}"
            )
        if len(set(wanted)) < len(wanted):
            raise ConfigError(f"frames: expected each frame once, got {list(frames)}")
        if self.kind == "picture":
            return dict.fromkeys(sorted(wanted), 0)
        if set(wanted) <= set(self.numbers):
            return {frame: self.numbers.index(frame) for frame in sorted(wanted)}
        if self.kind == "folder" and len(wanted) == len(self.numbers):
            return dict(sorted(zip(wanted, range(len(wanted)), strict=True)))
        raise FileError(
            f"{self.path} has {len(self.numbers)} frames, numbered {self.numbers[0]} to {self.numbers[-1]}; expected "
            f"pictures for the frames {', '.join(map(str, wanted))}: with those numbers, or as many as these."
        )

    def read(self, places: Sequence[int], *, ground: Ground = "black") -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield the frames at `places`, which ascend, upright and at their own size; `ground` shows through pictures.

        Raises `FileError` while reading, where one is damaged.
        """
        if self.kind == "picture":
            yield from [read_picture(self.path, ground=ground)] * len(places)
        elif self.kind == "folder":
            files = frame_files(self.path)
            yield from (read_picture(files[place], ground=ground) for place in places)
        else:
            yield from pick(Place(self.path), places)

    def fitted(
        self, places: Sequence[int], width: int, height: int, *, ground: Ground = "black"
    ) -> Float[Tensor, "frames 3 rows columns"]:
        """Return the frames at `places` in [-1, 1] at `width` x `height`: covering it, cropped at the centre."""
        # One by one, so that a video's frames are not held at their own size.
        return torch.cat([fit(frame[None], width, height) for frame in self.read(places, ground=ground)])


def open_footage(path: str | Path) -> Footage:
    """Return what steers a clip, looked at only; raise `FileError` where there is nothing, or nothing of the kind."""
    place = Path(path).expanduser()
    if place.is_dir():
        return Footage(path=place, kind="folder", numbers=_numbers(place))
    Place(place).stamp()  # refuses what is missing or empty
    if is_picture(place) or place.suffix.lower() in STILLS:
        read_picture(place)
        return Footage(path=place, kind="picture", numbers=(0,))
    return Footage(path=place, kind="video", numbers=tuple(range(look(Place(place)).num_frames)))


def _numbers(folder: Path) -> tuple[int, ...]:
    """Return the number in the name of each file of a folder, or their order where some have none."""
    files = frame_files(folder)
    found = [re.findall(r"\d+", file.stem) for file in files]
    if not all(found):
        return tuple(range(len(files)))
    numbers = [int(each[-1]) for each in found]
    for (first, before), (second, after) in pairwise(zip(files, numbers, strict=True)):
        if before == after:
            raise FileError(f"{folder}: {first.name} and {second.name} have the same number; which is frame {after}?")
    return tuple(numbers)
