"""The filling of a cache as a job: what it tells, and how several processes end."""

from pathlib import Path

import pytest

from stillmotion.data import LatentCache, Prepared
from stillmotion.errors import Cancelled, ConfigError, FileError
from stillmotion.training.preparing import CacheFilled, PrepareConfig, SourceFound, preparing


@pytest.fixture
def config(clips: Path, tmp_path: Path) -> PrepareConfig:
    """Five clips of 12 frames, of which every sixth is cached, by the toyworld's VAE."""
    return PrepareConfig(source=str(clips), out=tmp_path / "latents", width=32, height=32, keep_every=6, device="cpu")


def test_it_tells_what_it_found_each_clip_and_what_became_of_all(config: PrepareConfig) -> None:
    found, *clips, filled = preparing(config)
    assert isinstance(found, SourceFound)
    assert (found.num_clips, found.num_without_caption) == (5, 0)
    assert [clip.done for clip in clips if isinstance(clip, Prepared)] == [1, 2, 3, 4, 5]
    assert isinstance(filled, CacheFilled)
    assert (filled.num_encoded, filled.num_kept, filled.num_broken, filled.header.width) == (5, 0, 0, 32)
    assert len(LatentCache.open(filled.folder)) == 5


def test_what_is_wrong_is_told_before_the_first_event(config: PrepareConfig) -> None:
    with pytest.raises(FileError, match="there is no such file or folder"):
        preparing(config.replace(source="nowhere"))
    with pytest.raises(ConfigError, match="device: expected auto, cpu"):
        preparing(config.replace(device="abacus"))
    with pytest.raises(ConfigError, match="worker: expected a number from 0 to 1, got 2"):
        config.replace(worker=(2, 2))
    with pytest.raises(ConfigError, match="leave workers out"):
        config.replace(worker=(0, 2), workers=2)
    assert not config.out.exists()


def test_shares_make_the_whole(config: PrepareConfig) -> None:
    for number in range(2):
        *_, filled = preparing(config.replace(worker=(number, 2)))
        assert isinstance(filled, CacheFilled)
        assert filled.num_encoded == (3, 2)[number]
    assert len(LatentCache.open(config.out)) == 5


def test_several_processes_stop_when_asked(config: PrepareConfig) -> None:
    events = preparing(config.replace(workers=2), cancel=lambda: True)
    assert isinstance(next(events), SourceFound)
    with pytest.raises(Cancelled, match="The finished clips are kept"):
        next(events)
    *_, filled = preparing(config)
    assert isinstance(filled, CacheFilled)
    assert filled.num_encoded + filled.num_kept == 5
