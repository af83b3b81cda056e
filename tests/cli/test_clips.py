"""`animate` and `replay` with the models inside the package: as processes once, in this one otherwise."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stillmotion.cli.door import main
from stillmotion.data import probe, read_clip

PROMPT = "a red ball rolling right on green grass"
QUICK = ["-L", "4", "-s", "2", "--seed", "7", "--device", "cpu"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def folders(here: Path) -> list[Path]:
    outputs = here / "outputs"
    return sorted(outputs.iterdir()) if outputs.exists() else []


def test_animate_leaves_a_run_folder_and_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["animate", PROMPT, *QUICK]) == 0
    shown = capsys.readouterr()
    (folder,) = folders(here)
    names = ["clip.gif", "clip.mp4", "contact-sheet.png", "run.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    relative = folder.relative_to(here)
    assert shown.out.splitlines() == [str(relative / "clip.mp4"), str(relative / "clip.gif")]
    assert "cpu" in shown.err and "float32" in shown.err and "seed 7" in shown.err
    assert "Loading" not in shown.err
    assert "denoising: 2/2" in shown.err and "decoding: 4/4" in shown.err
    assert probe(folder / "clip.mp4").num_frames == 4
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert (run["seed"], run["config"]["prompt"], run["config"]["num_frames"]) == ("7", PROMPT, 4)


def test_replay_gives_the_same_frames(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def made(*words: str) -> Path:
        assert main(list(words)) == 0
        return here / capsys.readouterr().out.strip()

    first = made("animate", PROMPT, *QUICK, "--formats", "png")
    second = made("replay", str(first.parent / "run.json"), "-o", "again")
    assert second.is_relative_to(here / "again")
    assert (read_clip(first) == read_clip(second)).all()
    third = made("replay", str(second.parent), "-o", "again", "--set", "seed=8")
    assert not (read_clip(first) == read_clip(third)).all()


def test_config_file_set_and_flags_meet(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("scene.yaml").write_text(f"prompt: {PROMPT}\nnum_frames: 4\nseed: 1\nformats: [gif]\n", encoding="utf-8")
    words = ["--config", "scene.yaml", "--set", "seed=2", "-s", "1", "--device", "cpu", "--num-clips", "2"]
    assert main(["animate", *words]) == 0
    runs = [json.loads((folder / "run.json").read_text(encoding="utf-8")) for folder in folders(here)]
    assert sorted(run["seed"] for run in runs) == ["2", "3"]
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([""], "prompt: expected text that is not empty"),
        ([PROMPT, "-W", "100"], "width: expected an integer from 8 to 8192 that is a multiple of 8"),
        ([PROMPT, "-L", "40", "--context-length", "33"], "at most 32"),
        ([PROMPT, "--motion", "no-such-file.ckpt"], "no-such-file.ckpt does not exist"),
        ([PROMPT, "--model", "no-such-model.safetensors", "--motion", "x.ckpt"], "no-such-model.safetensors"),
        ([PROMPT, "--config", "no-such.yaml"], "no-such.yaml"),
        ([PROMPT, "--set", "sead=3"], "sead: unknown key; the nearest is 'seed'"),
        ([PROMPT, "--sampler", "eular"], "expected one of ddim"),
        ([PROMPT, "--device", "abacus"], "device: expected auto, cpu"),
        ([PROMPT, "-o", "taken/deeper"], "taken"),
    ],
)
def test_mistakes_are_named_before_anything_is_loaded_or_written(
    words: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken").write_text("a file", encoding="utf-8")
    assert main(["animate", *words]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err and "denoising" not in shown.err
    assert shown.out == ""
    assert [path.name for path in here.iterdir()] == ["taken"]


def test_ctrl_c_keeps_finished_clips_and_leaves_no_half_one(here: Path) -> None:
    words = [PROMPT, *QUICK, "--num-clips", "500", "--formats", "gif"]
    process = subprocess.Popen(
        [sys.executable, "-m", "stillmotion", "animate", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    process.stdout.readline()  # the first clip is finished
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert time.monotonic() - began < 30
    kept = 1 + len(out.splitlines())
    assert ("1 finished clip is kept." if kept == 1 else f"{kept} finished clips are kept.") in err
    assert "Traceback" not in err
    assert len(folders(here)) == kept
    assert not [folder for folder in folders(here) if folder.name.startswith(".")]
