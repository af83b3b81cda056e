"""Which clips are meant, what they should show, and what is said of what is no clip."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stillmotion.data import write_clip
from stillmotion.errors import FileError
from stillmotion.evaluation.found import find_clips, read_prompts
from stillmotion.evaluation.references import reference_files

Write = Callable[..., Path]


@pytest.fixture
def frames(panned: np.ndarray) -> np.ndarray:
    return panned[:2, :32, :32]


def run_folder(folder: Path, frames: np.ndarray, prompt: str) -> Path:
    """What `animate` leaves: two files of one clip, a contact sheet, the record."""
    folder.mkdir(parents=True)
    write_clip(frames, folder / "clip.gif", 8)
    write_clip(frames, folder / "clip.webp", 8)
    Image.fromarray(frames[0]).save(folder / "contact-sheet.png")
    (folder / "run.json").write_text(json.dumps({"config": {"prompt": prompt}}))
    return folder


def test_folders_hold_clips_runs_and_frames(tmp_path: Path, frames: np.ndarray) -> None:
    place = tmp_path / "all"
    run_folder(place / "run-1", frames, "from the record")
    write_clip(frames, place / "b.gif", 8, metadata={"config": {"prompt": "from the file"}})
    write_clip(frames, place / "frames", 8)
    (place / "frames.txt").write_text("from the\ntext beside it")
    Image.fromarray(frames[0]).save(place / "stray.png")
    (place / "notes.md").write_text("no clip")
    found = find_clips([str(place)])
    assert [(clip.name, clip.prompt) for clip in found] == [
        ("b", "from the file"),
        ("frames", "from the text beside it"),
        ("run-1", "from the record"),
    ]
    assert found[2].path.name == "clip.webp"  # one of the run's two files, the better one
    assert [clip.info.num_frames for clip in found] == [2, 2, 2]


def test_patterns_and_doubles(tmp_path: Path, frames: np.ndarray) -> None:
    for name in ("a/clip.gif", "b/clip.gif", "b/other.gif"):
        write_clip(frames, tmp_path / name, 8)
    found = find_clips([str(tmp_path / "*" / "*.gif"), str(tmp_path / "a")])
    assert [clip.name for clip in found] == ["a/clip", "b/clip", "other"]
    assert all(clip.prompt == "" for clip in found)


def test_prompts_said_go_before_prompts_found(tmp_path: Path, frames: np.ndarray) -> None:
    clip = write_clip(frames, tmp_path / "a.gif", 8, metadata={"config": {"prompt": "own"}}).path
    table = tmp_path / "prompts.csv"
    table.write_text("file,prompt\na,from  the table\nrun-1,run's\n")
    prompts = read_prompts(table)
    assert find_clips([str(clip)], prompts=prompts)[0].prompt == "from the table"
    assert find_clips([str(clip)], prompts=prompts, prompt="said")[0].prompt == "said"
    run = run_folder(tmp_path / "run-1", frames, "own")
    assert find_clips([str(run)], prompts=prompts)[0].prompt == "run's"


@pytest.mark.parametrize("record", ["no json", "[1]", '{"config": 3}', '{"config": {"prompt": {"0": "travels"}}}'])
def test_a_strange_record_says_nothing(record: str, tmp_path: Path, frames: np.ndarray) -> None:
    run = run_folder(tmp_path / "run", frames, "")
    (run / "run.json").write_text(record)
    assert find_clips([str(run)])[0].prompt == ""


def test_what_is_no_clip_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "words.mp4").write_text("these are no frames")
    (tmp_path / "nothing.gif").touch()
    for said, why in {
        "missing.mp4": r"missing\.mp4: there is no such file or folder",
        "empty": "empty: expected clips .* but it holds none",
        "words.mp4": r"words\.mp4: expected a clip, but it is no video",
        "nothing.gif": r"nothing\.gif: .*empty",
        "*.webm": r"\*\.webm: no file matches the pattern",
    }.items():
        with pytest.raises(FileError, match=why):
            find_clips([str(tmp_path / said)])


def test_tables_without_the_columns_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "prompts.csv"
    with pytest.raises(FileError, match="there is no such file"):
        read_prompts(table)
    table.write_text("name,text\n")
    with pytest.raises(FileError, match="expected the columns file and prompt, but it has: name, text"):
        read_prompts(table)


def test_references_of_one_clip_go_before_those_of_all(pictures: Path, frames: np.ndarray) -> None:
    assert [file.name for file in reference_files(pictures, "walk")] == ["one.png", "two.png"]
    (pictures / "walk").mkdir()
    Image.fromarray(frames[0]).save(pictures / "walk" / "own.png")
    assert [file.name for file in reference_files(pictures, "a/walk")] == ["own.png"]
    with pytest.raises(FileError, match="expected a folder of reference pictures"):
        reference_files(pictures / "nowhere", "walk")
    (pictures / "sub").mkdir()
    with pytest.raises(FileError, match="holds none"):
        reference_files(pictures / "sub", "walk")
