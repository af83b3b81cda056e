"""The latent cache: exact, lazy, safe to kill and to run again, refused where it is of another kind."""

import errno
import itertools
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stillmotion.data import (
    CacheHeader,
    ClipRecipe,
    LatentCache,
    Prepared,
    fit,
    open_source,
    prepare,
    recipe_on_cache,
    vae_fingerprint,
    write_clip,
)
from stillmotion.data.cache_folder import clip_path
from stillmotion.errors import Cancelled, ConfigError, FileError, MismatchError

FORKS = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # the children do nothing but compute

SoftFrames = Callable[[int, int, int], np.ndarray]


def encode(images: Tensor) -> tuple[Tensor, Tensor]:
    """Four numbers of every 8x8 square of a picture: a stand-in for a VAE that can be computed by hand."""
    small = torch.nn.functional.avg_pool2d(images, 8)
    mean = torch.cat([small, small.mean(1, keepdim=True)], 1)
    return mean, mean - 3


@pytest.fixture
def clips(tmp_path: Path, soft_frames: SoftFrames) -> Path:
    """Five clips of 6, 7, 8, 9 and 1 frames."""
    folder = tmp_path / "clips"
    for number, count in enumerate([6, 7, 8, 9, 1]):
        write_clip(soft_frames(count, 48, 32), folder / f"{number}.mp4", 8)
        (folder / f"{number}.txt").write_text(f"clip {number}", encoding="utf-8")
    return folder


def header_of(folder: Path, **changes: Any) -> CacheHeader:
    source = open_source(folder).fingerprint()
    plain = CacheHeader(vae="a" * 64, scaling_factor=0.18215, width=32, height=32, dtype="float32", source=source)
    return replace(plain, **changes)


def fill(clips: Path, out: Path, **changes: Any) -> list[Prepared]:
    options = {name: changes.pop(name) for name in ("worker", "num_workers", "cancel") if name in changes}
    return list(prepare(open_source(clips), encode, out, header_of(clips, **changes), frames_per_batch=4, **options))


def states(events: list[Prepared]) -> list[str]:
    return [event.state for event in events]


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_is_cached_is_what_is_encoded(tmp_path: Path, clips: Path, dtype: str) -> None:
    events = fill(clips, tmp_path / "cache", dtype=dtype)
    assert [(event.done, event.total, event.num_frames) for event in events] == [
        (1, 5, 6),
        (2, 5, 7),
        (3, 5, 8),
        (4, 5, 9),
        (5, 5, 1),
    ]
    cache, source = LatentCache.open(tmp_path / "cache", header_of(clips, dtype=dtype)), open_source(clips)
    assert len(cache) == 5 and LatentCache.is_one(tmp_path / "cache") and not LatentCache.is_one(clips)
    for index in range(5):
        assert cache.item(index) == source.item(index)
        assert cache.num_frames(index) == source.num_frames(index)
        assert (cache.fps(index), cache.size(index)) == (8, (32, 32))
        for picked in ([0], list(range(cache.num_frames(index)))[::-2], [cache.num_frames(index) - 1, 0, 0]):
            expected = encode(fit(source.frames(index, picked), 32, 32))
            for found, wanted in zip(cache.moments(index, picked), expected, strict=True):
                assert found.shape == (len(picked), 4, 4, 4) and found.dtype == getattr(torch, dtype)
                assert torch.equal(found, wanted.to(found.dtype))


def test_frames_may_be_thinned_and_clips_keep_their_shape(tmp_path: Path, clips: Path) -> None:
    header = header_of(clips, keep_every=2, buckets=((24, 40), (32, 32), (40, 24)))
    list(prepare(open_source(clips), encode, tmp_path / "cache", header))
    cache = LatentCache.open(tmp_path / "cache", header)
    assert [cache.num_frames(index) for index in range(5)] == [3, 4, 4, 5, 1]
    assert cache.fps(0) == 4 and cache.size(0) == (24, 40)
    mean, _ = cache.moments(1, [1, 3])
    assert torch.equal(mean, encode(fit(open_source(clips).frames(1, [2, 6]), 24, 40))[0])
    recipe = ClipRecipe(width=32, height=32, frame_stride=4)
    assert recipe_on_cache(recipe, header).frame_stride == 2
    with pytest.raises(ConfigError, match="frame_stride: expected a multiple of 2"):
        recipe_on_cache(recipe.replace(frame_stride=3), header)
    with pytest.raises(ConfigError, match="the cache is of 32x32, got 64x32"):
        recipe_on_cache(recipe.replace(width=64), header)
    with pytest.raises(ConfigError, match="horizontal_flip: a cache holds no mirrored pictures"):
        recipe_on_cache(recipe.replace(horizontal_flip=True), header)
    with pytest.raises(ConfigError, match=r"buckets: the cache holds one size, got .*32x32"):
        recipe_on_cache(recipe.replace(buckets=True), replace(header, buckets=()))
    with pytest.raises(ConfigError, match="buckets: the cache holds the sizes 24x40, 32x32, 40x24, got 32x32, 64x32"):
        recipe_on_cache(recipe.replace(buckets=((32, 32), (64, 32))), header)


def test_reading_takes_only_the_stretch_that_is_asked_for(
    tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(clips, tmp_path / "cache")
    cache = LatentCache.open(tmp_path / "cache")
    path = clip_path(tmp_path / "cache", 3)
    content = bytearray(path.read_bytes())
    content[-4:] = b"\xff" * 4  # the last number of the last frame is no number now
    path.write_bytes(content)
    assert all(moment.isfinite().all() for moment in cache.moments(3, [1, 7]))
    assert not all(moment.isfinite().all() for moment in cache.moments(3, [8]))
    with pytest.raises(FileError, match=r"frame 9 of 3\.mp4 was asked for, but the cache has 9 frames of it"):
        cache.moments(3, [2, 9])
    path.write_bytes(content[:100])
    with pytest.raises(FileError, match="the cached clip is damaged or gone"):
        cache.moments(3, [0])


# --- safe to stop, to kill and to run again --------------------------------------------------------------------------


def test_a_second_run_keeps_everything(tmp_path: Path, clips: Path) -> None:
    assert states(fill(clips, tmp_path / "cache")) == ["encoded"] * 5
    before = files(tmp_path / "cache")
    assert states(fill(clips, tmp_path / "cache")) == ["kept"] * 5
    assert files(tmp_path / "cache") == before


def test_stopping_keeps_what_is_finished(tmp_path: Path, clips: Path) -> None:
    asked = itertools.count()
    with pytest.raises(Cancelled, match=r"2 finished clips are kept"):
        fill(clips, tmp_path / "cache", cancel=lambda: next(asked) >= 7)
    with pytest.raises(
        FileError, match=r"not complete: 2 of 5 clips are prepared\. Run `stillmotion data prepare` again"
    ):
        LatentCache.open(tmp_path / "cache")
    assert states(fill(clips, tmp_path / "cache")) == ["kept"] * 2 + ["encoded"] * 3
    fill(clips, tmp_path / "straight")
    assert files(tmp_path / "cache") == files(tmp_path / "straight")


def _slow_encode(images: Tensor) -> tuple[Tensor, Tensor]:
    time.sleep(0.02)
    return encode(images)


def _run(clips: Path, out: Path, worker: int, num_workers: int) -> None:
    torch.set_num_threads(1)
    options: dict[str, Any] = {"worker": worker, "num_workers": num_workers, "frames_per_batch": 1}
    for _ in prepare(open_source(clips), _slow_encode, out, header_of(clips), **options):
        pass


@FORKS
def test_killed_at_any_moment_it_goes_on(tmp_path: Path, clips: Path) -> None:
    fill(clips, tmp_path / "straight")
    fork = multiprocessing.get_context("fork")
    for seconds in (0.05, 0.2, 0.4, 0.6):
        process = fork.Process(target=_run, args=(clips, tmp_path / "cache", 0, 1))
        process.start()
        time.sleep(seconds)
        process.kill()
        process.join()
        for path in (tmp_path / "cache").rglob("*.safetensors"):  # what is there is whole
            assert path.read_bytes() == (tmp_path / "straight" / path.relative_to(tmp_path / "cache")).read_bytes()
    fill(clips, tmp_path / "cache")
    found = {name: content for name, content in files(tmp_path / "cache").items() if not name.endswith(".partial")}
    assert found == files(tmp_path / "straight")


@FORKS
@pytest.mark.parametrize("num_workers", [1, 2], ids=["the same share", "a share each"])
def test_two_processes_at_once_make_one_cache(tmp_path: Path, clips: Path, num_workers: int) -> None:
    fork = multiprocessing.get_context("fork")
    shares = [fork.Process(target=_run, args=(clips, tmp_path / "cache", n % num_workers, num_workers)) for n in (0, 1)]
    for process in shares:
        process.start()
    for process in shares:
        process.join()
        assert process.exitcode == 0
    fill(clips, tmp_path / "straight")
    assert files(tmp_path / "cache") == files(tmp_path / "straight")


def test_what_killed_runs_left_is_removed_when_it_is_old(tmp_path: Path, clips: Path) -> None:
    fill(clips, tmp_path / "cache")
    folder = clip_path(tmp_path / "cache", 0).parent
    old, new = folder / ".00000000.safetensors.aa.partial", folder / ".00000001.safetensors.bb.partial"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 3600,) * 2)
    fill(clips, tmp_path / "cache")
    assert new.exists() and not old.exists()


def test_a_full_disk_keeps_what_is_finished(tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = Path.open, itertools.count()

    class Full:
        """A file on a disk that is full: it takes some bytes and refuses the rest."""

        def __init__(self, file: IO[bytes]) -> None:
            self._file = file

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def write(self, content: bytes) -> int:
            self._file.write(content[:50])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opened(path: Path, *words: Any, **options: Any) -> Any:
        file = real(path, *words, **options)
        is_clip = path.name.endswith(".partial") and ".safetensors" in path.name
        return Full(file) if is_clip and next(written) >= 2 else file

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(
        FileError, match=r"00000002\.safetensors: cannot be written: No space left on device\. .*are kept"
    ):
        fill(clips, tmp_path / "cache")
    monkeypatch.undo()
    clips_there = sorted(path.name for path in clip_path(tmp_path / "cache", 0).parent.iterdir())
    assert clips_there == ["00000000.safetensors", "00000001.safetensors"]
    assert not (tmp_path / "cache" / "quarantine.jsonl").exists()
    assert states(fill(clips, tmp_path / "cache")) == ["kept"] * 2 + ["encoded"] * 3
    assert len(LatentCache.open(tmp_path / "cache")) == 5


# --- broken clips ----------------------------------------------------------------------------------------------------


def test_a_broken_clip_is_set_aside_and_tried_again(tmp_path: Path, clips: Path) -> None:
    whole = (clips / "2.mp4").read_bytes()
    (clips / "2.mp4").write_bytes(whole[: len(whole) // 2])
    damaged = header_of(clips)
    (broken,) = [event for event in fill(clips, tmp_path / "cache") if event.state == "broken"]
    assert broken.key == "2.mp4" and "truncated" in broken.reason
    cache = LatentCache.open(tmp_path / "cache")
    assert [cache.item(index).key for index in range(4)] == ["0.mp4", "1.mp4", "3.mp4", "4.mp4"]
    assert torch.equal(cache.moments(2, [8])[0], encode(fit(open_source(clips).frames(3, [8]), 32, 32))[0])
    line = json.loads((tmp_path / "cache" / "quarantine.jsonl").read_text())
    assert line["clip"] == "2.mp4" and line["reason"] == broken.reason
    # The same source, mended without a change of its fingerprint.
    (clips / "2.mp4").write_bytes(whole)
    again = list(prepare(open_source(clips), encode, tmp_path / "cache", damaged))
    assert states(again) == ["kept", "kept", "encoded", "kept", "kept"]
    assert len(LatentCache.open(tmp_path / "cache")) == 5
    assert not list(tmp_path.rglob("*.broken")) and not (tmp_path / "cache" / "quarantine.jsonl").exists()


def test_many_broken_clips_stop_the_run(tmp_path: Path, clips: Path) -> None:
    (clips / "1.mp4").write_bytes(b"")
    (clips / "3.mp4").write_text("words, no video")
    with pytest.raises(FileError, match="2 of 5 clips are broken, more than 5%: the run stops") as told:
        fill(clips, tmp_path / "cache")
    assert "1.mp4: expected a clip, but the file is empty (0 bytes)" in str(told.value)
    assert "3.mp4: expected a clip, but it is no video that FFmpeg can read" in str(told.value)


def test_a_source_without_one_good_clip_makes_no_cache(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(b"")
    with pytest.raises(FileError, match="1 of the 1 clips could not be read, which is too many for a cache"):
        fill(tmp_path / "clips", tmp_path / "cache")


def test_a_cache_that_lacks_many_clips_is_never_opened(tmp_path: Path, clips: Path) -> None:
    for number in (3, 4):  # the last ones, so that every clip is settled when the run stops
        (clips / f"{number}.mp4").write_bytes(b"")
    with pytest.raises(FileError, match="2 of 5 clips are broken"):
        fill(clips, tmp_path / "cache")
    with pytest.raises(FileError, match="2 of the 5 clips could not be read, which is too many for a cache"):
        LatentCache.open(tmp_path / "cache")


def test_numbers_that_are_not_finite_never_reach_the_disk(tmp_path: Path, clips: Path) -> None:
    def overflowing(images: Tensor) -> tuple[Tensor, Tensor]:
        mean, logvar = encode(images)
        return mean * 1e6, logvar

    header = header_of(clips, dtype="float16")
    with pytest.raises(MismatchError, match=r"0\.mp4: the VAE gives numbers that are not finite"):
        list(prepare(open_source(clips), overflowing, tmp_path / "cache", header))
    assert not list(tmp_path.rglob("*.safetensors"))


# --- caches of another kind ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vae": "b" * 64}, "vae: it was encoded by another VAE (aaaaaaaaaaaa…, expected bbbbbbbbbbbb…)"),
        ({"scaling_factor": 0.13025}, "scaling_factor: its VAE scales latents otherwise (0.18215, expected 0.13025)"),
        ({"width": 64}, "width: its pictures have another width (32, expected 64)"),
        ({"dtype": "float16"}, "dtype: its numbers are held otherwise (float32, expected float16)"),
        ({"source": "c" * 64}, "source: it was made of other clips or captions"),
        ({"keep_every": 2}, "keep_every: other frames of each clip are in it (1, expected 2)"),
        ({"buckets": ((32, 32),)}, "buckets: its pictures have other sizes"),
    ],
)
def test_another_cache_is_refused_with_the_reason(
    tmp_path: Path, clips: Path, change: dict[str, Any], said: str
) -> None:
    fill(clips, tmp_path / "cache")
    before = files(tmp_path / "cache")
    for use in (
        lambda: LatentCache.open(tmp_path / "cache", header_of(clips, **change)),
        lambda: LatentCache.open(tmp_path / "cache").require(**change),
        lambda: fill(clips, tmp_path / "cache", **change),
    ):
        with pytest.raises(MismatchError) as told:
            use()
        assert said in str(told.value) and "is of another kind and is not used" in str(told.value)
    assert files(tmp_path / "cache") == before


def test_a_changed_caption_is_another_source(tmp_path: Path, clips: Path) -> None:
    fill(clips, tmp_path / "cache")
    (clips / "0.txt").write_text("another caption")
    with pytest.raises(MismatchError, match="source: it was made of other clips or captions"):
        fill(clips, tmp_path / "cache")


def test_what_is_no_cache_is_named(tmp_path: Path, clips: Path) -> None:
    with pytest.raises(FileError, match="none: there is no such folder; make a latent cache by"):
        LatentCache.open(tmp_path / "none")
    with pytest.raises(FileError, match=r"clips: holds no latent cache \(cache\.json is missing\)"):
        LatentCache.open(clips)
    with pytest.raises(FileError, match=r"clips: holds other files \(0\.mp4, …\); name an empty or a new folder"):
        fill(clips, clips)
    fill(clips, tmp_path / "cache")
    header = tmp_path / "cache" / "cache.json"
    header.write_text(header.read_text().replace('"version": 1', '"version": 99'))
    with pytest.raises(MismatchError, match="has version 99, this Stillmotion reads 1"):
        LatentCache.open(tmp_path / "cache")
    header.write_text("{")
    with pytest.raises(FileError, match=r"cache\.json: the header is damaged"):
        LatentCache.open(tmp_path / "cache")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match="file: cannot be made"):
        fill(clips, tmp_path / "file")


def test_wrong_numbers_are_refused_before_anything_is_written(tmp_path: Path, clips: Path) -> None:
    with pytest.raises(ConfigError, match="worker: expected a number from 0 to 1, got 2"):
        fill(clips, tmp_path / "cache", worker=2, num_workers=2)
    with pytest.raises(ConfigError, match="frames_per_batch: expected at least 1"):
        prepare(open_source(clips), encode, tmp_path / "cache", header_of(clips), frames_per_batch=0)
    assert not (tmp_path / "cache").exists()


def test_the_index_can_be_made_again(tmp_path: Path, clips: Path) -> None:
    fill(clips, tmp_path / "cache")
    index = tmp_path / "cache" / "index.jsonl"
    before = index.read_text()
    index.unlink()
    assert len(LatentCache.open(tmp_path / "cache")) == 5 and index.read_text() == before
    index.write_text("{")
    with pytest.raises(FileError, match="the index is damaged"):
        LatentCache.open(tmp_path / "cache")


def _tensors() -> Iterator[tuple[str, Tensor]]:
    for name in ("encoder.conv.weight", "quant_conv.bias", "decoder.conv.weight"):
        yield name, torch.arange(6.0).reshape(2, 3).half().float()


def test_the_fingerprint_is_of_what_encodes() -> None:
    plain = vae_fingerprint(dict(_tensors()))
    assert len(plain) == 64 and plain == vae_fingerprint(dict(reversed([*_tensors()])))
    assert plain == vae_fingerprint({name: tensor.half() for name, tensor in _tensors()})
    assert plain == vae_fingerprint({**dict(_tensors()), "decoder.conv.weight": torch.ones(2)})
    assert plain != vae_fingerprint({**dict(_tensors()), "quant_conv.bias": torch.ones(2, 3)})
    assert plain != vae_fingerprint({**dict(_tensors()), "quant_conv.bias": torch.arange(6.0)})
