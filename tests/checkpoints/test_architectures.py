"""A motion module of another architecture is kept whole by our own files, and never written where nobody reads it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import stillmotion as sm
from stillmotion.cli.door import main

from .conftest import WIDTHS, reference_motion, same, write

REFUSED = [
    ("original", "mm.ckpt"),
    ("diffusers", "folder"),
    ("diffusers", "mm.safetensors"),
    ("comfyui", "x.safetensors"),
]


def convolution(variant: str = "v3", **options: object) -> sm.MotionModule:
    """Return a motion module of convolutions with random weights everywhere."""
    torch.manual_seed(0)
    module = sm.MotionModule.from_variant(
        variant, block_out_channels=WIDTHS, layers_per_block=1, architecture="temporal_conv", **options
    )
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A file of ours."""
    return sm.save(convolution(), tmp_path / "in" / "conv.safetensors", metadata={"licence": "Apache-2.0"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("variant", "options"),
    [("v1", {}), ("v2", {}), ("v3", {"max_frames": 48, "motion_norm": "across_frames", "norm_num_groups": 16})],
)
def test_there_and_back(tmp_path: Path, variant: str, options: dict, dtype: torch.dtype) -> None:
    motion = convolution(variant, **options).to(dtype)
    path = sm.save(motion, tmp_path / "a.safetensors")
    again = sm.load(path, expect=sm.MotionModule)
    assert (again.variant, again.geometry) == (motion.variant, motion.geometry)
    assert same(again.state_dict(), motion.state_dict())
    copy = sm.convert(path, "stillmotion", tmp_path / "b.safetensors")
    assert copy.read_bytes() == path.read_bytes()


def test_the_file_says_what_it_is(saved: Path) -> None:
    with safe_open(saved, "pt") as file:
        told = json.loads(file.metadata()["stillmotion"])
    assert (told["geometry"]["architecture"], told["stores_positions"]) == ("temporal_conv", False)
    info = sm.inspect(saved)
    assert (info.kind, info.variant, info.architecture, info.dialect) == (
        ("motion_module", "v3", "temporal_conv", "stillmotion")
    )
    assert (info.widths, info.num_frames, info.metadata) == (WIDTHS, None, {"licence": "Apache-2.0"})
    assert info.num_parameters == sum(parameter.numel() for parameter in convolution().parameters())
    assert str(info) == "a motion module (variant v3, temporal_conv)"


def test_the_command_line_says_so_too(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(saved)]) == 0
    assert dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())["architecture"] == (
        "temporal_conv"
    )
    assert main(["convert", str(saved), "--to", "comfyui"]) == 2
    assert "no other program has that architecture" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("dialect", "name"), REFUSED)
def test_dialects_that_nobody_could_read_are_refused_before_anything_is_written(
    tmp_path: Path, saved: Path, dialect: str, name: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    message = f"temporal_conv cannot be written as '{dialect}'.*write it as 'stillmotion'"
    with pytest.raises(sm.MismatchError, match=message):
        sm.save(convolution(), tmp_path / "out" / name, dialect=dialect)
    with pytest.raises(sm.MismatchError, match=message):
        sm.convert(saved, dialect, tmp_path / "out" / name)
    assert sorted(tmp_path.rglob("*")) == before


def test_without_our_words_the_names_tell(tmp_path: Path, saved: Path) -> None:
    bare = write(tmp_path / "bare.ckpt", load_file(saved))
    assert sm.inspect(bare).architecture == "temporal_conv"
    with pytest.raises(sm.MismatchError, match="does not say which motion module it is"):
        sm.load(bare)
    motion = sm.load(bare, expect=sm.MotionModule, variant="v3")
    assert same(motion.state_dict(), convolution().state_dict())


def test_files_without_mention_are_transformers(tmp_path: Path, module_file: Path) -> None:
    assert sm.inspect(module_file).architecture == "transformer"
    ours = sm.convert(module_file, "stillmotion", tmp_path / "ours.safetensors")
    with safe_open(ours, "pt") as file:
        told = json.loads(file.metadata()["stillmotion"])
    del told["geometry"]["architecture"]  # as files were written before there was another
    save_file(load_file(ours), tmp_path / "older.safetensors", {"stillmotion": json.dumps(told)})
    assert sm.load(tmp_path / "older.safetensors", expect=sm.MotionModule).architecture.name == "transformer"


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("transformer", "says that it is a transformer module, but holds a temporal_conv"),
        ("mamba", "says architecture 'mamba'; known are transformer, temporal_conv"),
    ],
)
def test_what_was_written_must_hold(tmp_path: Path, saved: Path, architecture: str, words: str) -> None:
    told = {"kind": "motion_module", "variant": "v3", "geometry": {"architecture": architecture}}
    save_file(load_file(saved), tmp_path / "x.safetensors", {"stillmotion": json.dumps(told)})
    for read in (sm.load, sm.inspect):
        with pytest.raises(sm.FileError, match=words):
            read(tmp_path / "x.safetensors")


def test_half_of_each_is_no_module(tmp_path: Path, saved: Path) -> None:
    attention = {name: tensor for name, tensor in reference_motion().items() if ".transformer_blocks." in name}
    path = write(tmp_path / "both.safetensors", load_file(saved) | attention)
    with pytest.raises(sm.FileError, match="convolution_blocks"):
        sm.load(path, variant="v3")
