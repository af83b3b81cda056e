"""Names in place of files: what the toyworld brings, where they count, and what is said where it is not there."""

from pathlib import Path

import pytest

import stillmotion as sm
from stillmotion.animate import AnimateConfig
from stillmotion.animate.model_files import adapters_of, controls_of
from stillmotion.animate.named import NAMES, file_said
from stillmotion.claims.recipe import RecipeConfig, stages
from stillmotion.config import AdapterFile
from stillmotion.toyworld import weights


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of weights that holds a MotionLoRA and a ControlNet by name."""
    (tmp_path / "model_index.json").write_text("{}")
    for path in ("motion-loras/zoom-in.safetensors", "controls/depth/config.json"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("{}")
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    return tmp_path


def test_a_name_is_the_toyworlds_file(brought: Path) -> None:
    config = AnimateConfig(prompt="a ball", motion_loras=("zoom-in:0.5",), controls=("depth=ball.mp4",))
    assert adapters_of(config) == [
        ("motion_loras.0", AdapterFile(str(brought / "motion-loras" / "zoom-in.safetensors"), 0.5))
    ]
    [(_, control)] = controls_of(config)
    assert (control.path, control.source) == (str(brought / "controls" / "depth"), "ball.mp4")


def test_a_file_of_that_name_goes_before(brought: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("zoom-in").touch()
    assert file_said(AnimateConfig(prompt="a ball"), "motion_loras", "zoom-in") == "zoom-in"


def test_beside_other_models_a_name_is_a_file(brought: Path) -> None:
    assert file_said(AnimateConfig(prompt="a ball", motion="mm.ckpt"), "motion_loras", "zoom-in") == "zoom-in"
    assert file_said(AnimateConfig(prompt="a ball", model="dog"), "controls", "depth") == "depth"
    assert file_said(AnimateConfig(prompt="a ball", motion="mm.ckpt"), "controls", "depth") != "depth"


def test_what_is_not_there_is_said_with_how_to_make_it(brought: Path) -> None:
    with pytest.raises(sm.FileError, match=r"hold no neon .*--only neon"):
        file_said(AnimateConfig(prompt="a ball"), "loras", "neon")


def test_every_name_is_a_stage_of_the_recipe() -> None:
    assert {name for names in NAMES.values() for name in names} <= set(stages(RecipeConfig()))
