"""A baseline as a job: `animate`'s fields, events, outputs and record; and the image model as it was, afterwards."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import stillmotion as sm
from stillmotion.baselines import BaselineConfig, making
from stillmotion.baselines.config import OWN
from stillmotion.cli import main
from stillmotion.config import settings


@pytest.fixture
def job(tiny_model: Path) -> Callable[..., sm.Text2VideoZeroConfig]:
    def make(**changes: Any) -> sm.Text2VideoZeroConfig:
        fields = {
            "prompt": "a red ball",
            "model": str(tiny_model),
            "num_frames": 3,
            "num_inference_steps": 3,
            "seed": 7,
        }
        return sm.Text2VideoZeroConfig(**{**fields, "device": "cpu", "dtype": "float32", **changes})

    return make


def test_shared_fields_mean_what_they_mean_to_animate() -> None:
    animate = {setting.name: setting for setting in settings(sm.AnimateConfig)}
    for setting in settings(BaselineConfig):
        theirs = animate[setting.name]
        if setting.name in OWN:
            assert setting.limits == theirs.limits
            assert set(setting.choices) <= set(theirs.choices)
        else:
            assert setting == theirs


def test_a_run_folder_is_animates(job: Callable[..., sm.Text2VideoZeroConfig], tmp_path: Path) -> None:
    events: list[Any] = []
    clip = sm.baseline(job(output_dir=tmp_path, formats="gif"), progress=events.append)
    kinds = [type(event) for event in events]
    assert kinds[:2] == [sm.Started, sm.Loaded] and kinds[-1] is sm.Finished
    assert clip.frames.shape == (3, 32, 32, 3) and clip.seed == 7
    assert clip.folder is not None
    assert sorted(file.name for file in clip.folder.iterdir()) == ["clip.gif", "contact-sheet.png", "run.json"]
    record = json.loads((clip.folder / "run.json").read_text())
    assert record["baseline"] == "text2video-zero" and record["config"]["motion_field_x"] == 12
    assert "Motion module: text2video-zero" in record["parameters"]
    assert {file["role"] for file in record["models"]} == {"model"} and all(file["sha256"] for file in record["models"])
    with pytest.raises(sm.FileError, match="stillmotion baseline text2video-zero --config"):
        sm.replay(clip.folder)


def test_the_record_makes_the_same_clip_again(
    job: Callable[..., sm.Text2VideoZeroConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = sm.baseline(job(output_dir=tmp_path / "one", formats="png"))
    assert clip.folder is not None
    record = str(clip.folder / "run.json")
    assert main(["baseline", "text2video-zero", "--config", record, "-o", str(tmp_path / "two"), "--plain"]) == 0
    again = Path(capsys.readouterr().out.strip())
    first, second = (sorted(folder.iterdir()) for folder in (clip.outputs[0].path, again))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second] and len(first) == 3


def test_clips_are_those_of_their_seeds_and_the_model_stays_as_it_is(
    job: Callable[..., sm.Text2VideoZeroConfig],
) -> None:
    session = sm.Session()
    two = [event.clip for event in making(job(num_clips=2), session=session) if isinstance(event, sm.Finished)]
    alone = sm.baseline(job(seed=8), session=session)
    assert [clip.seed for clip in two] == [7, 8]
    assert (two[1].frames == alone.frames).all() and (two[0].frames != alone.frames).any()


def test_times_follow_the_steps(job: Callable[..., sm.Text2VideoZeroConfig]) -> None:
    assert job(num_inference_steps=50).times == (44, 47)
    assert job(num_inference_steps=25).times == (22, 23)
    for steps in range(1, 30):
        t0, t1 = job(num_inference_steps=steps).times
        assert 0 <= t0 <= t1 < steps
    with pytest.raises(sm.ConfigError, match="t0 2 and t1 1"):
        job(t0=2, t1=1)


def test_loras_are_in_the_model(job: Callable[..., sm.Text2VideoZeroConfig], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    factors = {f"{name}.lora_down.weight": torch.ones(2, 16), f"{name}.lora_up.weight": torch.ones(16, 2)}
    save_file({**factors, f"{name}.alpha": torch.tensor(2.0)}, tmp_path / "style.safetensors")
    session = sm.Session()
    plain = sm.baseline(job(), session=session)
    styled = sm.baseline(job(loras=[str(tmp_path / "style.safetensors")]), session=session)
    assert (styled.frames != plain.frames).any()
    assert (sm.baseline(job(), session=session).frames == plain.frames).all()
    assert [file["role"] for file in styled.run["models"]][-1] == "loras.0"


@pytest.mark.parametrize("verb", ["text2video-zero", "tune-a-video"])
def test_the_command_line_shows_every_field(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["baseline", verb, "--help"]) == 0
    shown = capsys.readouterr().out
    kind = sm.Text2VideoZeroConfig if verb == "text2video-zero" else sm.TuneAVideoConfig
    assert "\nmore:" not in shown
    assert all(f"--{setting.name.replace('_', '-')}" in shown or setting.name == "prompt" for setting in settings(kind))


def test_a_baseline_needs_a_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["baseline", "tune-a-vidoe"]) == 2
    assert "tune-a-video" in capsys.readouterr().err
