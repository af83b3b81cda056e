"""Replay: the same frames to the bit, from run.json or from the clip; changed models and foreign records refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import stillmotion as sm
from stillmotion.animate import AnimateConfig, Session, plan_replay, replay
from stillmotion.data import write_clip
from stillmotion.errors import ConfigError, FileError, MismatchError

Job = Callable[..., AnimateConfig]


@pytest.fixture
def made(job: Job, tmp_path: Path) -> sm.Clip:
    return sm.animate(job(output_dir=tmp_path / "outputs", formats=("mp4", "webp", "png")))


def test_every_kind_of_record_gives_the_same_frames(made: sm.Clip, tmp_path: Path) -> None:
    session, folder = Session(), made.folder
    assert folder is not None
    sources = [folder / "run.json", folder, folder / "clip.mp4", folder / "clip.webp", folder / "clip-frames"]
    for source in sources:
        again = replay(source, session=session)
        assert np.array_equal(again.frames, made.frames), source
        assert again.folder is None
    again = replay(made.save(tmp_path / "saved.gif"), output_dir=tmp_path / "again", session=session)
    assert again.folder is not None and again.folder.parent == tmp_path / "again"
    assert np.array_equal(again.frames, made.frames)


def test_one_clip_of_several_is_replayed_alone(job: Job, tmp_path: Path) -> None:
    events = list(sm.animation(job(output_dir=tmp_path, num_clips=2, formats=())))
    last = events[-1].clip  # type: ignore[union-attr]
    again = replay(last.folder)
    assert again.seed == 8 and np.array_equal(again.frames, last.frames)


def test_an_override_changes_the_job(made: sm.Clip) -> None:
    assert made.folder is not None
    other = replay(made.folder, overrides=["prompt=a blue cube", "num_frames=3"])
    assert len(other.frames) == 3 and other.seed == 7
    with pytest.raises(ConfigError, match=r"run\.json|num_frames: expected an integer"):
        replay(made.folder, overrides=["num_frames=many"])


def test_a_changed_model_is_refused_unless_allowed(job: Job, motion_file: Callable[..., Path], tmp_path: Path) -> None:
    motion = tmp_path / "v3_mm.safetensors"
    shutil.copy(motion_file("v3"), motion)
    clip = sm.animate(job(motion=motion, output_dir=tmp_path / "outputs", formats=()))
    assert clip.folder is not None
    content = bytearray(motion.read_bytes())
    content[-1] ^= 1
    motion.write_bytes(content)
    with pytest.raises(MismatchError, match=r"motion/v3_mm\.safetensors"):
        replay(clip.folder)
    assert len(replay(clip.folder, allow_changed_models=True).frames) == 4


def test_a_record_does_not_say_where_to_write(made: sm.Clip, tmp_path: Path) -> None:
    assert made.folder is not None
    path = made.folder / "run.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["config"]["output_dir"] = str(tmp_path / "elsewhere")
    path.write_text(json.dumps(record), encoding="utf-8")
    replay(path)
    assert not (tmp_path / "elsewhere").exists()


def test_another_version_of_a_package_is_noted(made: sm.Clip) -> None:
    assert made.folder is not None
    path = made.folder / "run.json"
    assert plan_replay(path).notes == ()
    record = json.loads(path.read_text(encoding="utf-8"))
    record["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(record), encoding="utf-8")
    (note,) = plan_replay(path).notes
    assert note.startswith("torch is ") and "was 1.0" in note


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("[1]", "got a JSON list"),
        ("{}", "no record of a run"),
        ('{"schema": 99, "config": {}}', "expected a record of schema 1, got 99"),
        ('{"schema": 1}', "holds no config"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_record_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(FileError, match=message):
        replay(path)


def test_a_record_with_wrong_values_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"schema": 1, "config": {"prompt": "a", "num_frames": "many"}}', encoding="utf-8")
    with pytest.raises(ConfigError, match="num_frames: expected an integer"):
        replay(path)


def test_clips_of_others_have_no_record(tmp_path: Path) -> None:
    write_clip(np.zeros((2, 16, 16, 3), np.uint8), tmp_path / "clip.mp4", 8)
    with pytest.raises(FileError, match="no record of a run"):
        replay(tmp_path / "clip.mp4")
    with pytest.raises(FileError, match="no such file"):
        replay(tmp_path / "none.json")
