"""What steers: pictures of every kind as a person sees them, and which frame of a source is which of the clip."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stillmotion.data import open_footage, read_picture, write_clip
from stillmotion.errors import ConfigError, FileError

GREY = np.linspace(0, 255, 12).astype(np.uint8).reshape(3, 4)


def folder_of(folder: Path, *names: str) -> Path:
    """Write a picture under each name, as bright as its place among them."""
    folder.mkdir()
    for index, name in enumerate(names):
        Image.new("RGB", (8, 8), (10 * index, 0, 0)).save(folder / name)
    return folder


def reds(path: Path, places: list[int]) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in open_footage(path).read(places)]


def test_grey_of_8_and_16_bits_comes_out_alike(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "8.png")
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "16.png")
    Image.fromarray(GREY.astype(np.float32) / 255).save(tmp_path / "float.tiff")
    for name in ("8.png", "16.png", "float.tiff"):
        pixels = read_picture(tmp_path / name)
        assert np.array_equal(pixels, np.repeat(GREY[..., None], 3, axis=2)), name


def test_a_photograph_held_sideways_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.new("RGB", (40, 20)).save(tmp_path / "side.jpg", exif=exif)
    assert read_picture(tmp_path / "side.jpg").shape == (40, 20, 3)
    assert open_footage(tmp_path / "side.jpg").fitted([0], 8, 16).shape == (1, 3, 16, 8)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_the_ground(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 2, 4))
    (picture.quantize(4) if mode == "P" else picture.convert(mode)).save(tmp_path / "a.png")
    assert (read_picture(tmp_path / "a.png")[:, 3] == 255).all()
    assert (read_picture(tmp_path / "a.png", ground="black")[:, 3] == 0).all()


def test_what_is_no_picture_is_said(tmp_path: Path) -> None:
    (tmp_path / "page.png").write_text("<html>no such page</html>")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    for name, message in (("page.png", "cannot be read as one"), ("cut.png", "damaged"), ("no.png", "no such file")):
        with pytest.raises(FileError, match=f"{name}.*{message}"):
            read_picture(tmp_path / name)
    for name, message in (("page.png", "cannot be read as one"), ("cut.png", "damaged"), ("no.png", "no such file")):
        with pytest.raises(FileError, match=f"{name}.*{message}"):
            open_footage(tmp_path / name)


def test_a_video_is_cut_from_its_start(tmp_path: Path) -> None:
    frames = np.repeat(np.arange(0, 250, 25, dtype=np.uint8), 32 * 32 * 3).reshape(10, 32, 32, 3)
    for name in ("clip.mp4", "clip.gif"):
        path = write_clip(frames, tmp_path / name, 8).path
        footage = open_footage(path)
        assert (footage.kind, footage.every(4)) == ("video", [0, 1, 2, 3])
        assert np.abs(np.array(reds(path, footage.every(4))) - [0, 25, 50, 75]).max() <= 3
        with pytest.raises(FileError, match=r"has 10 frames, but the clip has 16; .* num_frames 10"):
            footage.every(16)
        assert footage.some([9, 3, -10], 10) == {0: 0, 3: 3, 9: 9}


def test_one_picture_is_every_frame(tmp_path: Path) -> None:
    footage = open_footage(folder_of(tmp_path / "f", "a.webp") / "a.webp")
    assert (footage.kind, footage.every(16)) == ("picture", [0])
    assert footage.some([], 16) == {0: 0} and footage.some([-1, 3], 16) == {3: 0, 15: 0}


def test_the_number_of_a_file_is_its_frame(tmp_path: Path) -> None:
    footage = open_footage(folder_of(tmp_path / "keys", "8.png", "0.png", "015.png"))
    assert footage.numbers == (0, 8, 15) and reds(footage.path, [0, 1, 2]) == [10, 0, 20]
    assert footage.some([], 16) == {0: 0, 8: 1, 15: 2} and footage.some([8], 16) == {8: 1}
    assert footage.some([2, 4, -1], 16) == {2: 0, 4: 1, 15: 2}  # other numbers, as many: in order
    with pytest.raises(FileError, match="no picture for 13 of the clip's 16 frames, first 1: a file's number"):
        footage.every(16)
    with pytest.raises(FileError, match="has 3 frames, numbered 0 to 15; expected pictures for the frames 2, 4"):
        footage.some([2, 4], 16)
    with pytest.raises(ConfigError, match="frames: 8 is not in the clip; it has 8 frames, 0 to 7"):
        footage.some([], 8)
    with pytest.raises(ConfigError, match="frames: expected each frame once"):
        footage.some([7, -1], 8)


def test_a_folder_without_a_gap_begins_with_its_lowest_number(tmp_path: Path) -> None:
    footage = open_footage(folder_of(tmp_path / "frames", *(f"shot2_{index:04d}.jpg" for index in range(1, 6))))
    assert footage.numbers == (1, 2, 3, 4, 5) and footage.every(4) == [0, 1, 2, 3]
    assert open_footage(folder_of(tmp_path / "named", "b.png", "a.png")).every(2) == [0, 1]
    with pytest.raises(FileError, match=r"1\.png and 01\.png have the same number|01\.png and 1\.png have the same"):
        open_footage(folder_of(tmp_path / "twice", "1.png", "01.png"))
