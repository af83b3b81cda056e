"""`inspect` and `convert` on real files, tiny."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stillmotion.checkpoints import DIALECTS, save
from stillmotion.cli import files
from stillmotion.cli.door import main
from stillmotion.motion import MotionModule


@pytest.fixture
def module(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    made = MotionModule.from_variant("v3", block_out_channels=(32, 32), layers_per_block=1)
    return save(made, tmp_path / "v3_mm.ckpt", dialect="original")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "download.ckpt"
    path.write_text("<!DOCTYPE html><html><body>Sign in</body></html>", encoding="utf-8")
    return path


def test_inspect_says_what_a_file_is(module: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(module)]) == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (told["kind"], told["variant"], told["dialect"], told["num_frames"]) == (
        "motion_module",
        "v3",
        "original",
        "32",
    )
    assert told["sha256"] == hashlib.sha256(module.read_bytes()).hexdigest()
    assert told["num_parameters"] == f"{int(told['num_parameters'].replace(',', '')):,}"


def test_inspect_json_is_for_programs(module: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--json", str(module)]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["widths"], told["size"]) == ("motion_module", [32, 32], module.stat().st_size)


def test_inspect_many_is_a_table_and_a_broken_one_does_not_hide_the_rest(
    module: Path, page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(page), str(module), "missing.ckpt"]) == 2
    shown = capsys.readouterr()
    header, row = shown.out.splitlines()
    assert header.split("\t")[:3] == ["file", "kind", "variant"]
    assert row.split("\t")[:3] == [str(module), "motion_module", "v3"]
    assert shown.err.count("error: ") == 2
    assert "HTML" in shown.err and "missing.ckpt" in shown.err


def test_convert_writes_and_says_where(module: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "for-comfy.safetensors"
    assert main(["convert", str(module), "--to", "comfyui", "-o", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert any(".temporal_transformer." in name for name in load_file(out))


def test_convert_keeps_what_is_there(module: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(module), "--to", "diffusers"]) == 0
    made = Path(capsys.readouterr().out.strip())
    assert main(["convert", str(module), "--to", "diffusers"]) == 2
    assert str(made) in capsys.readouterr().err
    assert main(["convert", str(module), "--to", "diffusers", "--overwrite"]) == 0


def test_convert_refuses_what_it_is_not_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2, 2)}, other)
    assert main(["convert", str(other), "--to", "original"]) == 2
    assert str(other) in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [other]


def test_dialects_are_all_offered() -> None:
    assert set(files.DIALECTS) == set(DIALECTS)
