"""The job, its report and its command."""

import csv
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import stillmotion as sm
from stillmotion.cli.door import main
from stillmotion.evaluation import METRICS, interval_of
from stillmotion.evaluation import job as job_module
from stillmotion.evaluation import results as results_module
from stillmotion.evaluation.intervals import mean_of

Write = Callable[..., Path]
PROMPT = "a red ball rolling right on green grass"
QUICK = ("motion", "pan", "flicker", "loop_seam", "saturation")  # what needs no CLIP model


def test_one_clip_whole(panned: np.ndarray, written: Write, pictures: Path, tmp_path: Path) -> None:
    clip = written(panned, "pan", PROMPT)
    events: list[object] = []
    config = sm.EvaluateConfig(clips=(str(clip),), references=pictures, output_dir=tmp_path / "out")
    found = sm.evaluate(config, progress=events.append)
    assert set(found.metrics) == set(METRICS) and not found.skipped
    assert all(result.interval is None and result.num_clips == 1 for result in found.metrics.values())
    assert len(events) == 2
    assert found.folder is not None
    assert {file.name for file in found.folder.iterdir()} == {"evaluation.json", "evaluation.csv", "report.html"}
    record = json.loads((found.folder / "evaluation.json").read_text())
    assert record["clips"][0]["values"]["pan"] == pytest.approx(16 / 96, rel=0.01)
    assert record["clips"][0]["num_frames"] == 9 and record["clips"][0]["camera"].startswith("pan-right")
    assert re.fullmatch("[0-9a-f]{64}", record["clip"]["files"]["model.safetensors"])
    assert sm.EvaluateConfig.from_dict(record["config"]) == config


def test_several_clips_have_intervals(still: np.ndarray, panned: np.ndarray, written: Write, tmp_path: Path) -> None:
    clips = [written(panned, "=pan", "<script>alert(1)</script>"), written(still, "still"), written(still[:1], "one")]
    config = sm.EvaluateConfig(clips=tuple(map(str, clips)), metrics=QUICK, output_dir=tmp_path / "out", resamples=500)
    found = sm.evaluate(config)
    pan = found.metrics["pan"]
    assert pan.num_clips == 2 and pan.interval is not None and pan.interval[0] <= pan.mean <= pan.interval[1]
    assert found.clips[2].skipped["pan"] == "it takes at least two frames, and the clip has 1"
    assert found.clips[2].skipped["loop_seam"] == "it takes at least three frames, and the clip has 1"
    assert found.clips[2].values.keys() == {"saturation"}
    again = sm.evaluate(config)
    assert again.metrics == found.metrics and again.folder != found.folder

    rows = list(csv.DictReader(found.to_csv().splitlines()))
    assert [row["clip"] for row in rows] == ["'=pan", "still", "one"]  # no formula of a spreadsheet
    assert float(rows[0]["pan"]) == found.clips[0].values["pan"] and rows[2]["pan"] == ""
    assert found.folder is not None
    page = (found.folder / "report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert page.count('<video src="data:video/webm;base64,') == 3
    assert re.findall(r"""(?:src|href)=["'](?!data:)""", page) == []
    assert "http" not in re.sub("http-equiv", "", page)


def test_what_is_not_there_is_skipped_with_the_reason(
    still: np.ndarray, written: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise ImportError

    monkeypatch.setattr(job_module, "opencv", absent)
    monkeypatch.setattr(results_module, "can_resample", lambda: False)
    clips = [str(written(still, "a")), str(written(still, "b"))]
    found = sm.evaluate(sm.EvaluateConfig(clips=tuple(clips), metrics=("text", "domain", "pan", "flicker")))
    assert set(found.metrics) == {"flicker"} and found.metrics["flicker"].interval is None
    assert "OpenCV is not installed" in found.skipped["pan"]
    assert "give --prompt" in found.skipped["text"]
    assert "give a folder of them by --references" in found.skipped["domain"]
    assert any("scipy is not installed" in note for note in found.notes)


def test_the_weights_may_be_missing(still: np.ndarray, written: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise sm.FileError("The toyworld's weights are missing")

    monkeypatch.setattr("stillmotion.toyworld.weights_folder", none)
    found = sm.evaluate(sm.EvaluateConfig(clips=(str(written(still, "a")),), metrics=("smoothness", "flicker")))
    assert found.skipped == {"smoothness": "The toyworld's weights are missing"}


def test_stopping_writes_nothing(still: np.ndarray, written: Write, tmp_path: Path) -> None:
    config = sm.EvaluateConfig(clips=(str(written(still, "a")),), metrics=QUICK, output_dir=tmp_path / "out")
    with pytest.raises(sm.Cancelled):
        sm.evaluate(config, cancel=lambda: True)
    assert not (tmp_path / "out").exists()


def test_wrong_values_are_named() -> None:
    with pytest.raises(sm.ConfigError, match="clips: expected at least one"):
        sm.EvaluateConfig()
    with pytest.raises(sm.ConfigError, match=r"metrics.*expected one of text, domain, .*got 'fvd'"):
        sm.EvaluateConfig(clips=("a",), metrics=("fvd",))  # type: ignore[arg-type]


def test_intervals() -> None:
    assert interval_of([3.0]) is None
    assert interval_of([3.0, 3.0, 3.0]) == (3.0, 3.0)
    assert interval_of([2.0, 2.0], ratio=True) == pytest.approx((2.0, 2.0))
    values = np.random.default_rng(0).normal(5, 2, 200).tolist()
    low, high = interval_of(values) or (0, 0)
    half = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(200)  # what theory says of so many
    assert [low, high] == pytest.approx([np.mean(values) - half, np.mean(values) + half], abs=0.04)
    assert interval_of(values) == (low, high) != interval_of(values, seed=1)
    pair = interval_of([1.0, 4.0], ratio=True)
    assert mean_of([1.0, 4.0], ratio=True) == pytest.approx(2)
    assert pair is not None and 0.999 < pair[0] < 2 < pair[1] < 4.001


def test_the_command(
    panned: np.ndarray,
    written: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    clips = [str(written(panned, "a")), str(written(panned[::-1], "b"))]
    assert main(["evaluate", *clips, "--metrics", "pan", "--metrics", "domain", "--plain"]) == 0
    shown = capsys.readouterr()
    rows = [line.split("\t") for line in shown.out.splitlines()]
    assert rows[0] == ["measure", "mean", "95 % interval", "clips", "unit"]
    assert rows[1][0] == "Camera pan" and abs(float(rows[1][1])) < 0.01 and rows[1][3] == "2"
    assert Path(rows[2][0]).parts[0] == "evaluations" and Path(rows[2][0]).is_file()
    assert "Domain is skipped: there are no reference pictures" in shown.err
    assert main(["evaluate", "nowhere.mp4"]) == 2
    assert "nowhere.mp4: there is no such file or folder" in capsys.readouterr().err
    assert main(["evaluate"]) == 2
    assert "clips: expected at least one" in capsys.readouterr().err
