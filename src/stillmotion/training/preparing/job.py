"""The job itself: clips found, their frames encoded by one process or several, the cache complete."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stillmotion.data import CacheHeader, ClipSource, Prepared
from stillmotion.data.cache_folder import begin
from stillmotion.data.sources import without_caption
from stillmotion.devices import choose_device
from stillmotion.training.preparing.config import PrepareConfig
from stillmotion.training.preparing.share import fill_share, opened, vae_and_header
from stillmotion.training.preparing.spread import spread


@dataclass(frozen=True, kw_only=True)
class SourceFound:
    """The clips are found; none is opened yet."""

    name: str
    """What they are called."""
    num_clips: int
    """How many there are."""
    num_without_caption: int
    """How many of them have no caption."""


@dataclass(frozen=True, kw_only=True)
class CacheFilled:
    """Every clip of this process's share, or of all processes started here, is settled."""

    folder: Path
    """Where the cache is."""
    header: CacheHeader
    """What it was made with."""
    num_encoded: int
    """Clips that were encoded now."""
    num_kept: int
    """Clips that were there from before."""
    num_broken: int
    """Clips that could not be read."""


PrepareEvent = SourceFound | Prepared | CacheFilled
"""Anything that the job yields, in this order; `Prepared` once for each clip."""


def preparing(config: PrepareConfig, *, cancel: Callable[[], bool] | None = None) -> Iterator[PrepareEvent]:
    """Check the job now, and return the iterator that does it; what is finished is kept, however it ends.

    Several processes are started by importing the program's own main module anew, so a script that asks for them does
    its work under `if __name__ == "__main__":`.

    Args:
        config: Which clips, by whose VAE, and where the cache is.
        cancel: Asked between batches of frames whether to stop.

    Raises:
        ConfigError: A value is out of range or names nothing that exists.
        FileError: A file is missing, damaged or not what its field asks for, or too many clips are broken.
        MismatchError: The folder holds a cache of another kind.
        Cancelled: `cancel` said so.
    """
    source = opened(config)
    choose_device(config.device)  # a wrong name is told before the weights are read
    return _events(config, source, cancel or _never)


def _events(config: PrepareConfig, source: ClipSource, cancel: Callable[[], bool]) -> Iterator[PrepareEvent]:
    yield SourceFound(name=source.name, num_clips=len(source), num_without_caption=without_caption(source))
    if config.workers > 1:
        _, header = vae_and_header(config, source)
        begin(config.out.expanduser(), header, len(source))  # what is wrong is told here, once
        clips = spread(config, len(source), cancel)
    else:
        header, clips = fill_share(config, source, cancel)
    states: Counter[str] = Counter()
    for clip in clips:
        states[clip.state] += 1
        yield clip
    yield CacheFilled(
        folder=config.out,
        header=header,
        num_encoded=states["encoded"],
        num_kept=states["kept"],
        num_broken=states["broken"],
    )


def _never() -> bool:
    return False
