"""Filling a latent cache: safe to kill and run again, by as many processes at once as there are."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save
from torch import Tensor

from stillmotion.data.cache_folder import (
    CacheHeader,
    begin,
    broken_path,
    clip_path,
    finish,
    mark_broken,
    write_whole,
)
from stillmotion.data.latents import Encode
from stillmotion.data.sampling import Size, fit
from stillmotion.data.sources import ClipSource, Quarantine, stream
from stillmotion.errors import Cancelled, ConfigError, FileError, MismatchError

State = Literal["encoded", "kept", "broken"]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What became of one clip."""

    index: int
    """Its place in the source."""
    key: str
    """Its name."""
    state: State
    """Encoded now, there from before, or not readable."""
    num_frames: int
    """How many frames were encoded now."""
    done: int
    """How many clips of this process's share are settled."""
    total: int
    """How many clips its share has."""
    reason: str = ""
    """Why it is broken."""


def prepare(
    source: ClipSource,
    encode: Encode,
    folder: str | os.PathLike[str],
    header: CacheHeader,
    *,
    frames_per_batch: int = 8,
    worker: int = 0,
    num_workers: int = 1,
    cancel: Callable[[], bool] | None = None,
) -> Iterator[Prepared]:
    """Return an iterator that encodes the clips of a source into the cache at `folder`, one by one.

    Clips that are there are kept. Of several processes each does every `num_workers`-th clip, from `worker` on; whoever
    settles the last clip completes the cache. Processes with the same share only do the same work twice. A clip that
    cannot be read is written to `quarantine.jsonl` in the folder and tried again by the next run.

    Args:
        source: The clips.
        encode: The VAE's encoder.
        folder: A new or empty folder, or that of a run before.
        header: What the cache is made with; `header.source` is the source's fingerprint.
        frames_per_batch: How many frames are encoded at once.
        worker: Which share this process does.
        num_workers: How many shares there are.
        cancel: Asked between batches whether to stop.

    Raises:
        ConfigError: There is no such worker, or a batch is empty.
        MismatchError: The folder holds a cache of another kind; or the VAE gives numbers that are not finite.
        FileError: The folder holds something else, the disk is full, or too many clips are broken. What is finished
            is kept.
        Cancelled: `cancel` said so.
    """
    if not 0 <= worker < num_workers:
        raise ConfigError(f"worker: expected a number from 0 to {num_workers - 1}, got {worker}")
    if frames_per_batch < 1:
        raise ConfigError(f"frames_per_batch: expected at least 1, got {frames_per_batch}")
    place = Path(folder).expanduser()
    begin(place, header, len(source))
    share = range(worker, len(source), num_workers)
    aside = f"quarantine-{worker}-of-{num_workers}.jsonl" if num_workers > 1 else "quarantine.jsonl"
    filler = _Filler(source, encode, place, header, frames_per_batch, cancel)
    return filler.fill(share, Quarantine(len(share), place / aside))


@dataclass(frozen=True)
class _Filler:
    source: ClipSource
    encode: Encode
    folder: Path
    header: CacheHeader
    frames_per_batch: int
    cancel: Callable[[], bool] | None

    def fill(self, share: range, quarantine: Quarantine) -> Iterator[Prepared]:
        """Settle the clips of the share, and the cache if they are the last."""
        for done, index in enumerate(share, 1):
            key, frames, reason = self.source.item(index).key, 0, ""
            state: State = "kept"
            if not clip_path(self.folder, index).exists():
                self._stop_if_asked(done - 1)
                try:
                    moments, size = self._moments(index, done - 1)
                    state, frames = "encoded", len(moments["mean"])
                    told = self._told(index, size)
                except FileError as error:
                    state, reason = "broken", str(error)
                if state == "broken":
                    mark_broken(self.folder, index, reason)
                    quarantine.add(key, reason)
                else:
                    write_whole(clip_path(self.folder, index), save(moments, told))
                    broken_path(self.folder, index).unlink(missing_ok=True)
            yield Prepared(
                index=index, key=key, state=state, num_frames=frames, done=done, total=len(share), reason=reason
            )
        finish(self.folder, len(self.source))

    def _moments(self, index: int, finished: int) -> tuple[dict[str, Tensor], Size]:
        """Return mean and log-variance of a clip's frames, and the size that the frames were fitted to."""
        kept = range(0, self.source.num_frames(index), self.header.keep_every)
        size: Size | None = None
        parts: list[tuple[Tensor, Tensor]] = []
        batch: list[Tensor] = []
        for count, frame in enumerate(stream(self.source, index, kept), 1):
            size = size or self.header.size_of(frame.shape[1], frame.shape[0])
            batch.append(fit(frame[None], *size))
            if len(batch) == self.frames_per_batch or count == len(kept):
                self._stop_if_asked(finished)
                parts.append(self._encoded(torch.cat(batch), index))
                batch = []
        if size is None:
            raise FileError(f"{self.source.item(index).key}: expected a clip, but it holds no frame.")
        means, logvars = zip(*parts, strict=True)
        return {"mean": torch.cat(means), "logvar": torch.cat(logvars)}, size

    def _encoded(self, images: Tensor, index: int) -> tuple[Tensor, Tensor]:
        dtype = getattr(torch, self.header.dtype)
        with torch.no_grad():
            mean, logvar = (moment.to("cpu", dtype).contiguous() for moment in self.encode(images))
        if not (mean.isfinite().all() and logvar.isfinite().all()):
            raise MismatchError(
                f"{self.source.item(index).key}: the VAE gives numbers that are not finite; encode in float32, or keep "
                "them in float32."
            )
        return mean, logvar

    def _told(self, index: int, size: Size) -> dict[str, str]:
        """Return what a clip's file says of itself: one text, since safetensors keeps several in no order."""
        item, fps = self.source.item(index), self.source.fps(index) / self.header.keep_every
        told = {"key": item.key, "caption": item.caption, "fps": fps, "width": size[0], "height": size[1]}
        return {"clip": json.dumps(told, ensure_ascii=False)}

    def _stop_if_asked(self, finished: int) -> None:
        if self.cancel is not None and self.cancel():
            kept = "1 finished clip is kept" if finished == 1 else f"{finished} finished clips are kept"
            raise Cancelled(f"Stopped. {kept}; the same command does the rest.")
