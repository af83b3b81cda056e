"""Clips in: every kind of data set through one door, frames exact by number, broken files named and set aside."""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from stillmotion.data import ClipFormat, ClipSource, Quarantine, file_name, open_source, read_clip, write_clip
from stillmotion.data.sources import stream, without_caption
from stillmotion.errors import FileError

SoftFrames = Callable[[int, int, int], np.ndarray]

PICKED = [[0], [23], [17, 3, 3, 20], list(range(2, 24, 4)), list(range(24))]


def keys(source: ClipSource) -> dict[str, str]:
    return {source.item(index).key: source.item(index).caption for index in range(len(source))}


def encode(path: Path, frames: np.ndarray, times: Sequence[int] | None = None, **options: str) -> None:
    """Write an H.264 clip with these encoder options and time stamps in sixteenths of a second."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=16, options=options)
        video.height, video.width, video.pix_fmt = *frames.shape[1:3], "yuv420p"
        video.codec_context.time_base = Fraction(1, 16)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = times[index] if times else index
            frame.time_base = Fraction(1, 16)
            container.mux(video.encode(frame))
        container.mux(video.encode())


@pytest.fixture
def clip(tmp_path: Path, soft_frames: SoftFrames) -> bytes:
    """A good little clip, as bytes."""
    write_clip(soft_frames(4, 32, 32), tmp_path / "good.mp4", 8)
    content = (tmp_path / "good.mp4").read_bytes()
    (tmp_path / "good.mp4").unlink()
    return content


# --- frames by number ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mp4", "webm", "gif", "webp", "png"])
def test_frames_are_exact_in_any_order(tmp_path: Path, kind: ClipFormat, soft_frames: SoftFrames) -> None:
    path = tmp_path / "clips" / file_name("walk", kind)
    write_clip(soft_frames(24, 32, 48), path, 8)
    source, whole = open_source(tmp_path / "clips"), read_clip(path)
    assert (len(source), source.num_frames(0), source.fps(0)) == (1, 24, pytest.approx(8, rel=0.01))
    for picked in PICKED:
        assert (source.frames(0, picked) == whole[picked]).all()


@pytest.mark.parametrize(
    "options",
    [
        {"g": "6", "bf": "0"},
        {"g": "8", "bf": "3"},
        {"g": "8", "bf": "3", "x264-params": "open-gop=1:b-adapt=0:bframes=3"},
    ],
    ids=["short groups", "b-frames", "open groups"],
)
@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
def test_a_seek_lands_on_the_right_frame(
    tmp_path: Path, ending: str, options: dict[str, str], soft_frames: SoftFrames
) -> None:
    path = tmp_path / f"clip.{ending}"
    encode(path, soft_frames(24, 32, 32), **options)
    source, whole = open_source(path), read_clip(path)
    assert len(whole) == 24
    for first in range(24):
        assert (source.frames(0, [first]) == whole[first]).all(), first
    for picked in PICKED:
        assert (source.frames(0, picked) == whole[picked]).all()


def test_a_varying_rate_does_not_move_frames(tmp_path: Path, soft_frames: SoftFrames) -> None:
    times = np.cumsum([1, 5, 1, 1, 9, 2] * 4).tolist()
    encode(tmp_path / "clip.mp4", soft_frames(24, 32, 32), times, g="6")
    source, whole = open_source(tmp_path / "clip.mp4"), read_clip(tmp_path / "clip.mp4")
    for picked in PICKED:
        assert (source.frames(0, picked) == whole[picked]).all()


def test_streaming_is_the_same_in_one_pass(tmp_path: Path, soft_frames: SoftFrames) -> None:
    write_clip(soft_frames(24, 32, 32), tmp_path / "clip.mp4", 8)
    source = open_source(tmp_path / "clip.mp4")
    streamed = np.stack(list(stream(source, 0, range(0, 24, 2))))
    assert (streamed == read_clip(tmp_path / "clip.mp4")[::2]).all()


def test_a_frame_beyond_the_end_is_refused(tmp_path: Path, soft_frames: SoftFrames) -> None:
    write_clip(soft_frames(3, 32, 32), tmp_path / "clip.mp4", 8)
    with pytest.raises(FileError, match=r"clip\.mp4: frame 3 was asked for, but the clip has 3 frames"):
        open_source(tmp_path / "clip.mp4").frames(0, [0, 3])


def test_a_changed_file_is_looked_at_again(tmp_path: Path, soft_frames: SoftFrames) -> None:
    source_of = [write_clip(soft_frames(count, 32, 32), tmp_path / "clip.mp4", 8) for count in (3,)]
    source = open_source(tmp_path / "clip.mp4")
    assert source_of and source.num_frames(0) == 3
    write_clip(soft_frames(5, 32, 32), tmp_path / "clip.mp4", 8)
    assert source.num_frames(0) == 5


# --- kinds of data sets ----------------------------------------------------------------------------------------------


def test_a_folder_with_texts_beside_the_clips(tmp_path: Path, clip: bytes, soft_frames: SoftFrames) -> None:
    (tmp_path / "deep" / ".hidden").mkdir(parents=True)
    for name in ("b.mp4", "deep/a.MP4", "deep/.hidden/c.mp4", ".d.mp4"):
        (tmp_path / name).write_bytes(clip)
    (tmp_path / "b.txt").write_text("a red ball\n  rolling \n", encoding="utf-8")
    (tmp_path / "deep" / "a.txt").write_text("\ufeffein Ball", encoding="utf-8")
    write_clip(soft_frames(2, 16, 16), tmp_path / "frames", 8)
    (tmp_path / "frames.txt").write_text("frames", encoding="utf-8")
    write_clip(soft_frames(3, 16, 16), tmp_path / "deep" / "z.gif", 8)
    Image.new("RGB", (16, 16)).save(tmp_path / "deep" / "still.jpg")
    (tmp_path / "deep" / "still.txt").write_text("a still", encoding="utf-8")
    source = open_source(tmp_path)
    expected = {"b.mp4": "a red ball rolling", "deep/a.MP4": "ein Ball", "deep/still.jpg": "a still", "deep/z.gif": ""}
    assert keys(source) == expected | {"frames": "frames"}
    assert [source.num_frames(i) for i in range(5)] == [4, 4, 1, 3, 2]
    assert source.frames(2, [0, 0]).shape == (2, 16, 16, 3)
    assert without_caption(source) == 1


def test_a_folder_of_frames_may_be_given_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soft_frames: SoftFrames
) -> None:
    frames = soft_frames(6, 16, 16)
    write_clip(frames, tmp_path / "walk", 12)
    (tmp_path / "walk.txt").write_text("a walk")
    monkeypatch.chdir(tmp_path / "walk")
    for source in (open_source("."), open_source(tmp_path / "walk")):
        assert keys(source) == {"walk": "a walk"}
        assert (source.num_frames(0), source.fps(0)) == (6, 12)
        assert (source.frames(0, [5, 1, 1]) == frames[[5, 1, 1]]).all()


def test_linked_folders_are_followed_but_not_in_circles(tmp_path: Path, clip: bytes) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.mp4").write_bytes(clip)
    (tmp_path / "clips" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "clips" / "round").symlink_to(tmp_path / "clips", target_is_directory=True)
    assert keys(open_source(tmp_path / "clips")) == {"linked/a.mp4": ""}


def test_webvid_csv(tmp_path: Path, clip: bytes) -> None:
    folder = tmp_path / "videos"
    (folder / "000_050").mkdir(parents=True)
    (folder / "1.mp4").write_bytes(clip)
    (folder / "000_050" / "2.mp4").write_bytes(clip)
    table = tmp_path / "results.csv"
    table.write_text('videoid,duration,page_dir,name\n1,PT3S,,"A dog, running"\n2,PT3S,000_050,A cat\n3,,,Gone\n')
    source = open_source(table, video_folder=folder)
    assert keys(source) == {"1": "A dog, running", "2": "A cat", "3": "Gone"}
    assert [source.num_frames(0), source.num_frames(1)] == [4, 4]
    with pytest.raises(FileError, match=r"3\.mp4: there is no such file"):
        source.num_frames(2)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("named", [True, False])
def test_metadata_of_hugging_faces_videofolder(tmp_path: Path, clip: bytes, ending: str, named: bool) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.mp4").write_bytes(clip)
    (tmp_path / "b.mp4").write_bytes(clip)
    rows = [("train/a.mp4", "a corgi"), ("b.mp4", "a cat"), ("b.mp4", "a tabby cat")]
    table = tmp_path / f"metadata.{ending}"
    if ending == "csv":
        table.write_text("".join(f"{name},{text}\n" for name, text in [("file_name", "text"), *rows]))
    else:
        lines = [json.dumps({"file_name": name, "text": text, "views": 3}) for name, text in rows]
        table.write_text("\n".join(lines) + "\n\n")
    source = open_source(table if named else tmp_path)
    assert keys(source) == {"train/a.mp4": "a corgi", "b.mp4": "a cat", "b.mp4#2": "a tabby cat"}
    assert source.num_frames(2) == 4


def test_tar_shards_are_read_where_they_lie(tmp_path: Path, clip: bytes, soft_frames: SoftFrames) -> None:
    write_clip(soft_frames(3, 16, 16), tmp_path / "small.gif", 8)
    gif = (tmp_path / "small.gif").read_bytes()
    (tmp_path / "small.mp4").write_bytes(clip)
    members = [
        {"a.mp4": clip, "a.txt": b"one", "deep/b.json": b'{"caption": "two", "fps": 8}', "deep/b.mp4": clip},
        {"c.gif": gif, "c.txt": b"three", "readme.md": b"x"},
    ]
    for number, content in enumerate(members):
        with tarfile.open(tmp_path / f"clips-{number:02d}.tar", "w") as archive:
            for name, data in content.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    expected = {"clips-00.tar/a.mp4": "one", "clips-00.tar/deep/b.mp4": "two", "clips-01.tar/c.gif": "three"}
    shards = tmp_path / "shards"
    shards.mkdir()
    for path in tmp_path.glob("*.tar"):
        path.rename(shards / path.name)
    for pattern in ("clips-{00..01}.tar", "clips-*.tar", "clips-{00,01}.tar", ""):
        source = open_source(shards / pattern)
        assert keys(source) == expected
    assert [source.num_frames(i) for i in range(3)] == [4, 4, 3]
    assert (source.frames(1, [3, 1]) == read_clip(tmp_path / "small.mp4")[[3, 1]]).all()
    assert (source.frames(2, [2, 0]) == read_clip(tmp_path / "small.gif")[[2, 0]]).all()
    with pytest.raises(FileError, match=r"clips-02\.tar: there is no such tar; .* names 3, 1 are missing"):
        open_source(shards / "clips-{00..02}.tar")


def test_a_damaged_or_compressed_tar_is_named(tmp_path: Path, clip: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz") as archive:
        entry = tarfile.TarInfo("a.mp4")
        entry.size = len(clip)
        archive.addfile(entry, io.BytesIO(clip))
    with pytest.raises(FileError, match=r"a\.tar: expected a tar that is not compressed"):
        open_source(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("note.md"))
    with pytest.raises(FileError, match=r"b\.tar: expected clips .*, but the tar holds none"):
        open_source(tmp_path / "b.tar")


def test_the_fingerprint_is_of_what_is_there(tmp_path: Path, clip: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(clip)
    (tmp_path / "a.txt").write_text("one")
    first = open_source(tmp_path).fingerprint()
    assert first == open_source(tmp_path).fingerprint() and len(first) == 64
    (tmp_path / "a.txt").write_text("two")
    second = open_source(tmp_path).fingerprint()
    (tmp_path / "a.mp4").write_bytes(clip + b"\0")
    third = open_source(tmp_path).fingerprint()
    (tmp_path / "b.mp4").write_bytes(clip)
    assert len({first, second, third, open_source(tmp_path).fingerprint()}) == 4


# --- what is wrong is said at once -----------------------------------------------------------------------------------


def test_a_wrong_path_is_an_error_at_once(tmp_path: Path, clip: bytes) -> None:
    (tmp_path / "clips").mkdir()
    with pytest.raises(FileError, match=r"clps: there is no such file or folder \(the nearest name there is clips\)"):
        open_source(tmp_path / "clps")
    with pytest.raises(FileError, match="the folder is empty; expected a folder of clips"):
        open_source(tmp_path / "clips")
    (tmp_path / "clips" / "readme.md").write_text("x")
    with pytest.raises(FileError, match=r"the folder holds no clips, only readme\.md"):
        open_source(tmp_path / "clips")
    with pytest.raises(FileError, match=r"got a file that ends in \.md"):
        open_source(tmp_path / "clips" / "readme.md")
    with pytest.raises(FileError, match="no tar has such a name"):
        open_source(tmp_path / "*.tar")
    with pytest.raises(FileError, match="video_folder: it is for a CSV of videoids"):
        open_source(tmp_path / "clips", video_folder=tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "id,title\n1,x\n", "expected the columns videoid and name, but it has: id, title"),
        ("t.csv", "", "expected the columns videoid and name, but it has: none"),
        ("t.csv", "videoid,name\n", "expected a row per clip, but it has none"),
        ("t.csv", "videoid,name\n,x\n", "row 1: the column videoid is empty"),
        ("t.csv", "videoid,name\n../../a,x\n", "leads out of"),
        ("t.csv", "videoid,name\n8,x\n9,x\n", "holds none of the 2 clips that .* the first would be .*8.mp4"),
        (
            "metadata.csv",
            "file_name,label\na.mp4,3\n",
            "expected the columns file_name and text, but it has: file_name",
        ),
        ("metadata.jsonl", '{"file": "a.mp4"}', "row 1: expected the columns file_name and text, but it has: file"),
        ("metadata.jsonl", "[1]", "row 1: expected the columns file_name and text, but it has: none"),
        ("metadata.jsonl", "{", "expected a JSON object per line"),
        ("metadata.jsonl", "", "expected a line per clip, but it has none"),
        ("metadata.csv", "file_name,text\nb.mp4,x\n", "not one of its 1 files is there; the first would be .*b.mp4"),
    ],
)
def test_a_wrong_table_is_an_error_at_once(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(FileError, match=message):
        open_source(tmp_path / name)


def test_a_missing_video_folder_and_a_binary_table_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("videoid,name\n1,x\n")
    with pytest.raises(FileError, match="gone: there is no such folder; it should hold the clips"):
        open_source(tmp_path / "t.csv", video_folder=tmp_path / "gone")
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(FileError, match="expected a CSV table, but it cannot be read"):
        open_source(tmp_path / "t.csv", video_folder=tmp_path)
    (tmp_path / "a.gif").write_bytes(b"x")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(FileError, match=r"a\.txt: expected a caption in UTF-8"):
        open_source(tmp_path)


@pytest.mark.parametrize("inside", ["folder", "tar"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a\.mp4: expected a clip, but the file is empty \(0 bytes\)"),
        (b"only words, no video at all\n" * 9, r"a\.mp4: expected a clip, but it is no video"),
        (b"GIF89a" + b"\0" * 40, r"a\.mp4: "),
        (None, r"a\.mp4: (the clip is truncated|expected a clip, but it is a damaged)"),
    ],
    ids=["zero bytes", "text", "no gif", "truncated"],
)
def test_a_broken_clip_is_named_when_it_is_opened(
    tmp_path: Path, clip: bytes, content: bytes | None, message: str, inside: str
) -> None:
    data = clip[: len(clip) * 2 // 3] if content is None else content
    if inside == "folder":
        (tmp_path / "a.mp4").write_bytes(data)
    else:
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            entry = tarfile.TarInfo("a.mp4")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    source = open_source(tmp_path)
    for read in (source.num_frames, source.fps, lambda index: source.frames(index, [0])):
        with pytest.raises(FileError, match=message):
            read(0)


@pytest.mark.parametrize("share", [0.4, 0.8, 0.95])
@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_no_truncation_goes_unseen(tmp_path: Path, kind: str, share: float) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (24, 32, 32, 3), np.uint8)
    write_clip(frames, tmp_path / f"a.{kind}", 8)
    whole = (tmp_path / f"a.{kind}").read_bytes()
    (tmp_path / f"a.{kind}").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(FileError, match=r"truncated|damaged"):
        open_source(tmp_path).num_frames(0)


# --- quarantine ------------------------------------------------------------------------------------------------------


def test_broken_clips_are_listed_with_their_reasons(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text("of an earlier run\n")
    quarantine = Quarantine(100, tmp_path / "q.jsonl")
    assert quarantine.summary() == "" and not (tmp_path / "q.jsonl").exists()
    for key, reason in [("a.mp4", "it is empty"), ("b.mp4", "“ist” kaputt"), ("a.mp4", "again")]:
        quarantine.add(key, reason)
    lines = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == [{"clip": "a.mp4", "reason": "it is empty"}, {"clip": "b.mp4", "reason": "“ist” kaputt"}]
    assert len(quarantine) == 2
    assert quarantine.summary().startswith("2 of 100 clips are broken; all are in ")


@pytest.mark.parametrize(("total", "allowed"), [(1, 1), (10, 1), (20, 1), (39, 1), (40, 2), (100, 5)])
def test_more_than_a_twentieth_broken_ends_the_run(total: int, allowed: int) -> None:
    quarantine = Quarantine(total)
    for number in range(allowed):
        quarantine.add(f"{number}.mp4", f"{number}.mp4: is empty")
    with pytest.raises(
        FileError, match=rf"{allowed + 1} of {total} clips are broken, more than 5%: the run stops"
    ) as told:
        quarantine.add("last.mp4", "last.mp4: is empty")
    assert "0.mp4: is empty" in str(told.value)
