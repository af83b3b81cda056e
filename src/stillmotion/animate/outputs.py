"""Where a clip's frames go: to memory, to every format asked for, to the contact sheet, all as they are decoded."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, final

import numpy as np
from jaxtyping import UInt8

from stillmotion.animate.clip import Clip
from stillmotion.animate.config import AnimateConfig
from stillmotion.animate.record import compact
from stillmotion.animate.run_folder import RunFolder
from stillmotion.animate.script import first_words
from stillmotion.animate.upscaling import larger_size, written_fps, written_frames
from stillmotion.data import ClipWriter, SheetWriter, WrittenClip, file_name

CLIP, SHEET = "clip", "contact-sheet.png"


@final
class Outputs:
    """A clip in the making; as a context it leaves nothing of it if an error, a signal or the caller ends it early."""

    def __init__(self, config: AnimateConfig, begun: Mapping[str, Any], *, keep_frames: bool) -> None:
        self._config, self._begun = config, begun
        self._seed = config.seed or 0
        self._kept: list[np.ndarray] | None = [] if keep_frames else None
        width, height = larger_size(config) or (0, 0)
        self._shape = (0, height, width, 3)
        self._folder: RunFolder | None = None
        self._writers: list[ClipWriter] = []
        self._sheet: SheetWriter | None = None
        self._written: tuple[WrittenClip, ...] = ()
        self._done = False

    def __enter__(self) -> "Outputs":
        config = self._config
        if config.output_dir is not None:
            self._folder = folder = RunFolder(config.output_dir, first_words(config), self._seed)
            self._sheet = SheetWriter(folder.path(SHEET), written_frames(config))
            self._writers = [
                ClipWriter(
                    folder.path(file_name(CLIP, kind)), written_fps(config), kind=kind, metadata=compact(self._begun)
                )
                for kind in dict.fromkeys(config.formats)
            ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._done:
            return
        for writer in self._writers:
            writer.abandon()
        if self._folder is not None:
            self._folder.abandon()

    def add(self, frames: UInt8[np.ndarray, "frames height width 3"]) -> None:
        """Hand the next frames to everybody; there may be none."""
        if self._kept is not None and len(frames):
            self._kept.append(frames)
        for frame in frames:
            for writer in self._writers:
                writer.add(frame)
            if self._sheet is not None:
                self._sheet.add(frame)

    def close_clips(self) -> tuple[WrittenClip, ...]:
        """Finish the clip files and the sheet; return what was written, still under the hidden folder."""
        self._written = tuple(writer.finish() for writer in self._writers)
        if self._sheet is not None:
            self._sheet.finish()
        return self._written

    def finish(self, whole: Mapping[str, Any]) -> Clip:
        """Write the record, put the folder in place and return the clip."""
        folder: Path | None = self._folder.finish(whole) if self._folder else None
        self._done = True
        frames = np.concatenate(self._kept) if self._kept else np.zeros(self._shape, np.uint8)
        return Clip(
            frames=frames,
            fps=written_fps(self._config),
            seed=self._seed,
            run=whole,
            folder=folder,
            outputs=tuple(_moved(output, folder) for output in self._written),
        )


def _moved(output: WrittenClip, folder: Path | None) -> WrittenClip:
    return replace(output, path=folder / output.path.name) if folder else output
