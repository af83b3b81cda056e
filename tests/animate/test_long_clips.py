"""Long clips, travelling prompts, loops and the dial through whole jobs, on tiny models."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stillmotion as sm
from stillmotion.animate import AnimateConfig, Session, make_plan
from stillmotion.animate.outline import Outline, drawn
from stillmotion.cli.door import main
from stillmotion.errors import ConfigError, MismatchError

Job = Callable[..., AnimateConfig]
SHORT = {"num_inference_steps": 1, "num_frames": 7, "context_length": 4}


_plain: list[np.ndarray] = []


@pytest.fixture(scope="module")
def session() -> Session:
    return Session()


def frames(config: AnimateConfig, session: Session) -> np.ndarray:
    return sm.animate(config, session=session).frames


def test_a_clip_that_fits_is_the_same_whatever_its_windows(job: Job, session: Session) -> None:
    plain = frames(job(), session)
    for context in ("looped", "inside"):
        assert np.array_equal(frames(job(context=context, context_length=8, context_overlap=7), session), plain)
    steady = {0: 1.0, -1: 1.0}
    told = {"motion_strength": steady, "guidance_scale": {0: 7.5}, "prompt_map": {2: job().prompt}, "hold_ratio": 1.0}
    assert np.array_equal(frames(job(**told), session), plain)


@pytest.mark.parametrize(
    "how",
    [
        {"context": "uniform", "noise": "freenoise"},
        {"loop": "closed", "context": "inside", "noise": "repeated"},
        {"freeinit_passes": 2},
        {"prompt_map": {-1: "b"}, "negative_map": {3: "c"}, "guidance_scale": {0: 1, 6: 3}, "prompt_blend": "slerp"},
        {"motion_strength": {0: 0, -1: 1}},
    ],
    ids=str,
)
def test_each_way_makes_a_clip_of_its_own_and_again(job: Job, session: Session, how: dict[str, object]) -> None:
    if not _plain:
        _plain.append(frames(job(**SHORT), session))
    made = sm.animate(job(**{**SHORT, **how}), session=session)
    assert made.frames.shape == _plain[0].shape and not np.array_equal(made.frames, _plain[0])
    again = AnimateConfig.from_dict(json.loads(json.dumps(made.run["config"])))
    assert np.array_equal(frames(again, session), made.frames)


def test_a_motion_lora_that_comes_and_goes(job: Job, session: Session, motion_lora_file: Callable[..., Path]) -> None:
    lora = str(motion_lora_file())
    with_it = frames(job(motion_loras=[lora]), session)
    coming = frames(job(motion_loras=[lora], motion_lora_strengths=[{0: 0, 3: 1}]), session)
    plain = frames(job(), session)
    assert not np.array_equal(coming, with_it) and not np.array_equal(coming, plain)
    assert np.array_equal(frames(job(motion_loras=[lora], motion_lora_strengths=[{0: 0}]), session), plain)


def test_windows_are_told_one_by_one(job: Job, session: Session) -> None:
    events = list(sm.animation(job(**SHORT), session=session))
    told = [(event.step, event.window, event.windows) for event in events if isinstance(event, sm.WindowDone)]
    assert told == [(1, 1, 2)]
    assert [type(event).__name__ for event in events[2:4]] == ["WindowDone", "StepDone"]


def test_a_window_has_no_more_frames_than_positions(job: Job, motion_file: Callable[..., Path]) -> None:
    short = motion_file(max_frames=6)
    assert make_plan(job(motion=short, num_frames=50)).config.context_length == 6
    with pytest.raises(MismatchError, match=r"context_length: 8 is more than .* positions for 6 frames"):
        make_plan(job(motion=short, context_length=8))
    with pytest.raises(ConfigError, match="context_overlap: expected an integer from 0 to 5"):
        make_plan(job(motion=short, context_overlap=7))


def test_the_plan_is_told_and_drawn(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = job(num_frames=32, num_inference_steps=3, context="uniform", prompt_map={31: "a blue ball"})
    outline = Outline.of(config)
    assert [len(windows) for windows in outline.steps] == [3, 3, 3] and outline.passes == 9 and outline.ideal == 2
    assert outline.step_rows(2) == [("1", "0-15, 12-27, 16-31"), ("2", "16-31, 0-15, 8-23"), ("…", "1 more")]
    assert outline.travel_rows()[1] == ("31", "prompt", "a blue ball")
    picture = Image.open(drawn(outline, tmp_path / "plan.png"))
    assert picture.width > 32 and len(picture.getcolors(10_000) or []) > 5
    words = ["plan", "a red ball", "-L", "48", "--loop", "closed", "-s", "1", "--device", "cpu"]
    assert main([*words, "--draw", str(tmp_path / "loop.png")]) == 0
    shown = capsys.readouterr().out
    assert "0-15, 12-27, 24-39, 36-47+0-3" in shown and "4 windows of 16 frames; 3 without overlap" in shown
    assert (tmp_path / "loop.png").exists()
    assert main(["plan", "a red ball", "--context-overlap", "16"]) == 2
    assert "each window of 16 frames must begin" in capsys.readouterr().err


def test_a_list_of_jobs_runs_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("jobs.yaml").write_text(
        "- {prompt: [a red ball, a blue box], n_prompt: [dark], steps: 1, guidance_scale: 1.0, seed: [1, 2], L: 2}\n",
        encoding="utf-8",
    )
    assert main(["animate", "--config", "jobs.yaml", "--formats", "png", "--device", "cpu"]) == 0
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path("outputs").glob("*/run.json"))]
    assert sorted((run["config"]["prompt"], run["seed"]) for run in runs) == [("a blue box", "2"), ("a red ball", "1")]
    Path("jobs.yaml").write_text("- {prompt: [a], steps: x}\n", encoding="utf-8")
    assert main(["animate", "--config", "jobs.yaml"]) == 2
    assert "jobs.yaml: job 1, prompt 1: num_inference_steps: expected an integer" in capsys.readouterr().err
