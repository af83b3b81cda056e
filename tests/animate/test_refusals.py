"""What is refused, by name, before anything is loaded or written."""

import io
import pickle
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from stillmotion.animate import AnimateConfig, animation
from stillmotion.errors import ConfigError, FileError, MismatchError, StillmotionError

Job = Callable[..., AnimateConfig]


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks come before the loading: a refused job must never get there."""

    def forbidden(*_: Any, **__: Any) -> None:
        pytest.fail("a model was loaded")

    session = import_module("stillmotion.animate.session")
    monkeypatch.setattr(session, "load_t2i", forbidden)
    monkeypatch.setattr(session, "load", forbidden)


def refused(config: AnimateConfig, kind: type[StillmotionError], message: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(kind, match=message):
        animation(config)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": ""}, "prompt: expected text that is not empty"),
        ({"prompt": "  "}, "prompt: expected text that is not empty"),
        ({"width": 100}, "width: expected an integer from 8 to 8192 that is a multiple of 8 or none, got 100"),
        ({"height": 0}, "height: expected an integer"),
        ({"num_frames": "abc"}, "num_frames: expected an integer >= 1, got 'abc'"),
        ({"sampler": "dimm"}, "sampler: expected one of ddim"),
        ({"formats": "avi"}, r"formats\.0: expected one of mp4, webm, gif, webp, png"),
        ({"motion_norm": "frames"}, "motion_norm: expected one of per_frame, across_frames or none"),
        ({"fps": 0}, "fps: expected a number from 0.1 to 240"),
    ],
)
def test_values_out_of_range(job: Job, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AnimateConfig.from_dict({**job().to_dict(), **changes})


def test_unknown_keys_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="guidance: unknown key; the nearest is 'guidance_scale'"):
        AnimateConfig.from_dict({"prompt": "a ball", "guidance": 3})


def test_devices_that_are_not_here(job: Job, tmp_path: Path) -> None:
    refused(job(device="cuda:63"), ConfigError, "device: 'cuda:63' is not on this machine; it has cpu", tmp_path)
    refused(job(device="gpu"), ConfigError, "device: expected auto, cpu, cuda", tmp_path)


def test_missing_files(job: Job, tmp_path: Path) -> None:
    for field in ("motion", "vae", "model"):
        changes = {field: str(tmp_path / "none.safetensors")}
        refused(job(**changes), FileError, rf"{field}: .*none\.safetensors does not exist", tmp_path)
    refused(job(motion_loras=("none.ckpt:0.5",)), FileError, r"motion_loras\.0: none\.ckpt does not exist", tmp_path)
    refused(job(model=tmp_path), FileError, "model: .* is no diffusers folder", tmp_path)
    refused(job(motion=None), ConfigError, "motion: .* needs a motion module", tmp_path)


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this code ran",))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("html.ckpt", b"<!DOCTYPE html><html>not found</html>"),
        ("empty.safetensors", b""),
        ("truncated.safetensors", (1000).to_bytes(8, "little") + b'{"a":'),
        ("code.ckpt", pickle.dumps({"state_dict": Code()})),
    ],
)
@pytest.mark.parametrize("field", ["motion", "domain_adapter", "model", "vae"])
def test_damaged_and_dangerous_files(
    job: Job, tmp_path: Path, field: str, name: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    refused(job(**{field: str(path)}), FileError, name, tmp_path)
    assert "this code ran" not in capsys.readouterr().out


def test_files_of_another_kind_are_named_as_what_they_are(
    job: Job, tmp_path: Path, motion_lora_file: Callable[..., Path], domain_adapter_file: Path
) -> None:
    lora, adapter = str(motion_lora_file("v3")), str(domain_adapter_file)
    refused(
        job(motion=lora),
        FileError,
        r"is a MotionLoRA \(rank 2\), expected a motion module; give it as motion_loras",
        tmp_path,
    )
    refused(job(motion=adapter), FileError, r"is a domain adapter \(rank 2\), expected a motion module", tmp_path)
    refused(job(motion_loras=(adapter,)), FileError, r"is a domain adapter \(rank 2\), expected a MotionLoRA", tmp_path)
    refused(job(domain_adapter=lora), FileError, r"is a MotionLoRA \(rank 2\), expected a domain adapter", tmp_path)
    refused(
        job(model=job().motion), FileError, r"is a motion module \(variant v3\), expected a Stable Diffusion", tmp_path
    )


def test_a_v2_motion_lora_on_a_v3_module(job: Job, tmp_path: Path, motion_lora_file: Callable[..., Path]) -> None:
    refused(job(motion_loras=(str(motion_lora_file("v2")),)), MismatchError, "moves the mid block, as v2", tmp_path)


def test_a_motion_lora_on_a_module_without_attention(
    job: Job, tmp_path: Path, motion_file: Callable[..., Path], motion_lora_file: Callable[..., Path]
) -> None:
    still = job(
        motion=motion_file(architecture="temporal_conv"), variant="v3", motion_loras=(str(motion_lora_file("v3")),)
    )
    refused(still, MismatchError, r"motion_loras\.0: .* attention over frames.* temporal_conv module", tmp_path)


def test_more_frames_than_positions(job: Job, tmp_path: Path, motion_file: Callable[..., Path]) -> None:
    refused(
        job(context_length=33), MismatchError, "context_length: 33 is more than .* positions for 32 frames", tmp_path
    )
    v1 = motion_file("v1")
    refused(job(context_length=25, motion=v1), MismatchError, "v1 module has positions for 24 frames", tmp_path)


def test_a_module_for_another_family(job: Job, tmp_path: Path, motion_file: Callable[..., Path]) -> None:
    wide = motion_file("sdxl_beta", (32, 64, 96))
    refused(job(motion=wide), MismatchError, r"UNet of widths \(32, 64, 96\), but .* has \(32, 32, 32, 32\)", tmp_path)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_output_folder_that_cannot_be(job: Job, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    refused(job(output_dir=tmp_path / place), FileError, "output_dir: .* is a file; choose another", tmp_path)


def test_an_output_folder_that_cannot_be_written(job: Job, tmp_path: Path) -> None:
    if not Path("/proc").is_dir():
        pytest.skip("needs a folder that nobody can write to")
    refused(job(output_dir=Path("/proc/outputs")), FileError, "output_dir: nothing can be written to", tmp_path)


def test_torch_files_are_not_run(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    buffer = io.BytesIO()
    torch.save({"state_dict": Code()}, buffer)
    (tmp_path / "code.ckpt").write_bytes(buffer.getvalue())
    refused(job(motion=tmp_path / "code.ckpt"), FileError, r"code\.ckpt", tmp_path)
    assert "this code ran" not in capsys.readouterr().out
