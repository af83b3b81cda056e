"""`data camera`: clips, pictures and folders in, moving clips out; damaged sources, Ctrl-C, what is there already."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stillmotion.cli.door import main
from stillmotion.data import (
    CameraConfig,
    CameraMotion,
    Kept,
    film,
    move_camera,
    probe,
    read_clip,
    read_metadata,
    write_clip,
)
from stillmotion.errors import Cancelled, ConfigError

ZOOM = ["--motion", "zoom-in:1.5", "-L", "3"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ramp(height: int = 64, width: int = 96) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([columns * 200 // width, rows * 200 // height, np.full(rows.shape, 90)], -1).astype(np.uint8)


def picture(path: Path, height: int = 64, width: int = 96) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(ramp(height, width)).save(path)
    return path


def clip(path: Path, count: int = 4, fps: float = 12) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    write_clip(np.stack([np.roll(ramp(), 4 * index, 1) for index in range(count)]), path, fps)
    return path


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_picture_becomes_a_clip(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(here / "hill.png")
    (here / "hill.txt").write_text("a hill", encoding="utf-8")
    assert main(["data", "camera", "hill.png", *ZOOM, "-o", "made/zoomed.mp4"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["made/zoomed.mp4"]
    assert "zoom-in:1.5, linear, 3 frames" in shown.err and "filming: 3/3" in shown.err
    assert files(here / "made") == ["zoomed.mp4", "zoomed.txt"]
    assert (here / "made" / "zoomed.txt").read_text(encoding="utf-8") == "a hill"
    info = probe(here / "made" / "zoomed.mp4")
    assert (info.num_frames, info.width, info.height, info.fps) == (3, 96, 64, 8)
    expected = move_camera(ramp()[None], CameraMotion(zoom=1.5), 3, (64, 96)).astype(int)
    assert np.abs(read_clip(here / "made" / "zoomed.mp4") - expected).mean() < 3
    record = read_metadata(here / "made" / "zoomed.mp4")["camera"]
    assert (record["motion"], record["source"], record["source_size"]) == ("zoom-in:1.5", "hill.png", [64, 96])


def test_a_folder_of_both_becomes_clips_with_their_captions(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = here / "clips"
    clip(source / "walk.mp4", 9)
    write_clip([ramp()] * 9, source / "shore", 6)  # a folder of frames
    picture(source / "hill.jpg")
    clip(source / "one.gif", 1)
    for name in ("walk", "shore", "hill", "orphan"):
        (source / f"{name}.txt").write_text(f"a {name}", encoding="utf-8")
    (source / ".hidden.png").write_bytes(b"")
    (source / "notes.md").write_text("nothing", encoding="utf-8")
    words = ["--motion", "pan-left:0.2+tilt-up:0.1", "--easing", "smooth", "-L", "3", "--frame-stride", "4"]
    assert main(["data", "camera", "clips", *words, "-W", "48", "--out", "made"]) == 0
    made = here / "made"
    assert files(made) == ["hill.mp4", "hill.txt", "one.mp4", "shore.mp4", "shore.txt", "walk.mp4", "walk.txt"]
    assert sorted(capsys.readouterr().out.splitlines()) == [f"made/{n}.mp4" for n in ("hill", "one", "shore", "walk")]
    assert (made / "shore.txt").read_text(encoding="utf-8") == "a shore"
    assert {probe(made / f"{name}.mp4").fps for name in ("hill", "one")} == {8}
    assert (probe(made / "walk.mp4").fps, probe(made / "shore.mp4").fps) == (3, 1.5)
    assert {(probe(path).width, probe(path).height, probe(path).num_frames) for path in made.glob("*.mp4")} == {
        (48, 32, 3)
    }


def test_a_phones_picture_stands_upright(here: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise shows it upright
    Image.fromarray(ramp()).save(here / "phone.jpg", exif=exif)
    assert main(["data", "camera", "phone.jpg", *ZOOM, "-o", "made"]) == 0
    info = probe(here / "made" / "phone.mp4")
    assert (info.width, info.height) == (64, 96)


@pytest.mark.parametrize(
    ("source", "asked", "made"),
    [
        ((1080, 1920), {}, (512, 904)),
        ((100, 90), {}, (96, 88)),
        ((64, 96), {"width": 192}, (128, 192)),
        ((64, 96), {"height": 32}, (32, 48)),
        ((64, 96), {"height": 32, "width": 32}, (32, 32)),
    ],
)
def test_sizes_follow_the_source(source: tuple[int, int], asked: dict, made: tuple[int, int], here: Path) -> None:
    picture(here / "a.png", *source)
    config = CameraConfig(source="a.png", motion="pan-left", out="b.gif", num_frames=2, **asked)
    (done,) = [event.clip for event in film(config) if hasattr(event, "clip")]
    assert (done.height, done.width) == made


def test_damaged_sources_are_skipped_and_the_others_made(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = here / "clips"
    clip(source / "a.mp4")
    whole = clip(source / "cut.mp4").read_bytes()
    (source / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (source / "cut.txt").write_text("a caption", encoding="utf-8")
    (source / "empty.mp4").write_bytes(b"")
    (source / "words.mp4").write_text("only words " * 20, encoding="utf-8")
    (source / "page.png").write_text("<html></html>", encoding="utf-8")
    clip(source / "short.mp4", 2)
    picture(source / "tiny.png", 8, 8)
    clip(source / "z.mp4")
    assert main(["data", "camera", "clips", *ZOOM, "-o", "made"]) == 2
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["made/a.mp4", "made/z.mp4"]
    assert files(here / "made") == ["a.mp4", "z.mp4"]
    for said in (
        "cut.mp4: ",
        "empty.mp4: expected a clip, but the file is empty (0 bytes)",
        "words.mp4: expected a clip, but it is no video",
        "page.png: expected a picture",
        "short.mp4: 3 frames are asked for, but it has 2",
        "tiny.png: zoom-in:1.5: the smallest crop would be",
        "6 of the sources were skipped",
    ):
        assert said in shown.err
    assert "Traceback" not in shown.err


def test_finished_clips_stay_and_others_are_not_taken_for_them(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(here / "in" / "a.png")
    clip(here / "in" / "b.mp4")
    assert main(["data", "camera", "in", *ZOOM, "-o", "made"]) == 0
    times = {path: path.stat().st_mtime_ns for path in (here / "made").iterdir()}
    (here / "made" / "b.mp4").unlink()
    capsys.readouterr()
    assert main(["data", "camera", "in", *ZOOM, "-o", "made"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["made/b.mp4"] and "a.mp4 is there already and is kept" in shown.err
    assert (here / "made" / "a.mp4").stat().st_mtime_ns == times[here / "made" / "a.mp4"]
    # Another motion is not the one that was asked for before.
    assert main(["data", "camera", "in", "--motion", "pan-left", "-L", "3", "-o", "made"]) == 2
    assert "a.mp4: is there already and is zoom-in:1.5 of a.png" in capsys.readouterr().err
    (here / "own.mp4").write_bytes(b"my own")
    assert main(["data", "camera", "in/a.png", *ZOOM, "-o", "own.mp4"]) == 2
    assert (here / "own.mp4").read_bytes() == b"my own"
    assert main(["data", "camera", "in", "--motion", "pan-left", "-L", "3", "-o", "made", "--overwrite"]) == 0
    assert read_metadata(here / "made" / "a.mp4")["camera"]["motion"] == "pan-left:0.3"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.mp4", *ZOOM, "-o", "made"], "none.mp4: there is no such file or folder"),
        (["void", *ZOOM, "-o", "made"], "void: expected clips or pictures"),
        (
            ["a.png", "--motion", "zom-in", "-o", "made"],
            "motion: unknown camera motion 'zom-in'; the nearest is 'zoom-in'",
        ),
        (["a.png", "--motion", "zoom-in:0.5", "-o", "made"], "motion: zoom-in: expected a factor above 1"),
        (["a.png", "-o", "made"], "motion: missing"),
        (["a.png", "--motion", "zoom-in"], "out: missing"),
        (["a.png", *ZOOM, "-o", "made.avi"], "expected a clip to end in .mp4"),
        (["in", *ZOOM, "-o", "made.mp4"], "out: expected a folder for the clips of a folder"),
        (["in", *ZOOM, "-o", "taken"], "taken: expected a folder to write to, but this is a file"),
        (["in", *ZOOM, "-o", "in"], "would lie among the sources"),
        (["a.mp4", *ZOOM, "-o", "a.mp4", "--overwrite"], "would lie among the sources"),
        (["a.mp4", *ZOOM, "-o", ".", "--overwrite"], "would lie among the sources"),
        (["twins", *ZOOM, "-o", "made"], "a.png: would become made/a.mp4, and so would"),
        (["a.png", "--motion", "zoom-in", "-L", "1", "-o", "made"], "num_frames: expected an integer >= 2"),
        (["a.png", *ZOOM, "-W", "100", "-o", "made"], "width: expected an integer from 16 to 8192"),
        (["a.png", *ZOOM, "--easing", "bouncy", "-o", "made"], "easing: "),
        (["a.png", *ZOOM, "-o", "a.mp4/deeper"], "deeper"),
        (["a.png", *ZOOM, "--moton", "x", "-o", "made"], "Unknown flag --moton; the nearest flag is --motion"),
    ],
)
def test_mistakes_are_errors_at_once(
    words: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(here / "a.png")
    clip(here / "a.mp4")
    picture(here / "in" / "a.png")
    picture(here / "twins" / "a.png")
    clip(here / "twins" / "a.mp4")
    (here / "void").mkdir()
    (here / "taken").write_text("a file", encoding="utf-8")
    before = {name: (here / name).read_bytes() for name in files(here)}
    assert main(["data", "camera", *words]) == 2
    shown = capsys.readouterr()
    assert said in shown.err and "Traceback" not in shown.err
    assert shown.out == ""
    assert {name: (here / name).read_bytes() for name in files(here)} == before


def test_a_yaml_file_says_the_same(here: Path) -> None:
    picture(here / "a.png")
    (here / "job.yaml").write_text("source: a.png\nmotion: zoom-in:1.5\nnum_frames: 5\nout: made\n", encoding="utf-8")
    assert main(["data", "camera", "--config", "job.yaml", "-L", "2"]) == 0
    assert probe(here / "made" / "a.mp4").num_frames == 2


def test_cancelling_keeps_what_is_finished(here: Path) -> None:
    for name in "abc":
        picture(here / "in" / f"{name}.png")
    config = CameraConfig(source="in", motion="zoom-in", out="made", num_frames=4)
    seen = 0

    def cancel() -> bool:
        nonlocal seen
        seen += 1
        return seen == 6  # in the midst of the second clip

    with pytest.raises(Cancelled, match="1 of 3 clips"):
        list(film(config, cancel=cancel))
    assert files(here / "made") == ["a.mp4"]
    assert [type(event) for event in film(config) if isinstance(event, Kept)] == [Kept]
    assert files(here / "made") == ["a.mp4", "b.mp4", "c.mp4"]


def test_a_full_disk_stops_the_job_and_leaves_no_half_clip(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stillmotion.data.encoders import ContainerEncoder

    picture(here / "in" / "a.png")
    picture(here / "in" / "b.png")
    (here / "in" / "a.txt").write_text("a caption", encoding="utf-8")

    def full(self: ContainerEncoder) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ContainerEncoder, "close", full)
    assert main(["data", "camera", "in", *ZOOM, "-o", "made"]) == 2
    assert files(here / "made") == []


def test_ctrl_c_ends_between_frames(here: Path) -> None:
    for index in range(300):
        picture(here / "in" / f"{index:03d}.png", 32, 32)
    process = subprocess.Popen(
        [sys.executable, "-m", "stillmotion", "data", "camera", "in", *ZOOM, "-o", "made"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    process.stdout.readline()  # the first clip is finished
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    kept = 1 + len(out.splitlines())
    assert f"{kept} of 300 clips are finished and kept." in err and "Traceback" not in err
    assert len(files(here / "made")) == kept


def test_a_config_refuses_a_wrong_motion() -> None:
    with pytest.raises(ConfigError, match="motion: unknown camera motion 'dolly'"):
        CameraConfig(source="a", motion="dolly", out="b")
