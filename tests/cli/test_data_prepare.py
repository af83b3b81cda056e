"""`data prepare` with the VAE inside the package: as a process where signals and several processes matter."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from stillmotion.cli.door import main
from stillmotion.data import LatentCache, fit, open_source, vae_fingerprint, write_clip
from stillmotion.t2i import load_vae
from stillmotion.toyworld import weights_folder

SMALL = ["-W", "32", "-H", "32", "--device", "cpu", "--dtype", "float32"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with clips of 2, 3, 4 and 5 frames, the first two with captions."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        frames = np.random.default_rng(number).integers(0, 255, (number + 2, 32, 48, 3), np.uint8)
        write_clip(frames, Path(f"clips/{number}.mp4"), 8)
        if number < 2:
            Path(f"clips/{number}.txt").write_text(f"a red ball {number}", encoding="utf-8")
    return tmp_path


def start(*words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "stillmotion", "data", "prepare", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_prepare_fills_a_cache_and_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prepare", "clips", "-o", "latents", *SMALL]) == 0
    shown = capsys.readouterr()
    assert shown.out == "latents\n"
    assert "4 clips in clips, 2 of them without a caption" in shown.err
    assert "encoding clips: 4/4" in shown.err and "4 encoded; 32x32, float32" in shown.err
    vae, source = load_vae(weights_folder()), open_source("clips")
    cache = LatentCache.open("latents")
    cache.require(vae=vae_fingerprint(vae.state_dict()), scaling_factor=vae.config.scaling_factor)
    with torch.no_grad():
        posterior = vae.encode(fit(source.frames(3, [0, 4]), 32, 32)).latent_dist
    mean, logvar = cache.moments(3, [0, 4])
    torch.testing.assert_close(mean, posterior.mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logvar, posterior.logvar, rtol=1e-5, atol=1e-5)
    assert main(["data", "prepare", "clips", "-o", "latents", *SMALL]) == 0
    assert "4 there from before" in capsys.readouterr().err


def test_the_toyworlds_own_size_and_half_precision_are_the_default(here: Path) -> None:
    shutil.copytree("clips", "one", ignore=shutil.ignore_patterns("[123].*"))
    assert main(["data", "prepare", "one", "-o", "latents"]) == 0
    header = LatentCache.open("latents").header
    assert (header.width, header.height, header.dtype, header.scaling_factor) == (128, 128, "float16", 0.18215)
    assert LatentCache.open("latents").moments(0, [0])[0].shape == (1, 4, 16, 16)


def test_a_cache_of_another_vae_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prepare", "clips", "-o", "latents", *SMALL]) == 0
    vae = load_vae(weights_folder())
    vae.encoder.conv_in.bias.data += 1
    vae.save_pretrained("other")
    capsys.readouterr()
    assert main(["data", "prepare", "clips", "-o", "latents", "--vae", "other", *SMALL]) == 2
    shown = capsys.readouterr()
    assert "vae: it was encoded by another VAE" in shown.err and "Traceback" not in shown.err and shown.out == ""
    vae.encoder.conv_in.bias.data -= 1
    vae.decoder.conv_in.bias.data += 1  # a decoder has no part in latents
    vae.save_pretrained("tuned")
    assert main(["data", "prepare", "clips", "-o", "latents", "--vae", "tuned", *SMALL]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["clps", "-o", "latents"], "clps: there is no such file or folder (the nearest name there is clips)"),
        (["empty", "-o", "latents"], "empty: the folder is empty"),
        (["t.csv", "-o", "latents"], "expected the columns videoid and name, but it has: id, title"),
        (["clips"], "The following arguments are required: -o/--out"),
        (["clips", "-o", "latents", "-W", "100"], "width: expected an integer from 8 to 8192 that is a multiple of 8"),
        (["clips", "-o", "latents", "--workers", "0"], "--workers: expected an integer >= 1, got 0"),
        (["clips", "-o", "latents", "--worker", "2/2"], "--worker: expected I/N with I from 0 to N - 1"),
        (["clips", "-o", "latents", "--workers", "2", "--worker", "0/2"], "leave --workers out"),
        (["clips", "-o", "latents", "--device", "abacus"], "device: expected auto, cpu"),
        (["clips", "-o", "latents", "--model", "no-such.safetensors"], "no-such.safetensors does not exist"),
        (["clips", "-o", "latents", "--vae", "clips"], "clips is no diffusers folder of an AutoencoderKL"),
        (["clips", "-o", "clips"], "clips: holds other files"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(
    words: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    Path("t.csv").write_text("id,title\n1,x\n")
    assert main(["data", "prepare", *words]) == 2
    shown = capsys.readouterr()
    assert said in shown.err and "Traceback" not in shown.err and shown.out == ""
    assert sorted(path.name for path in here.iterdir()) == ["clips", "empty", "t.csv"]


def test_a_broken_clip_is_told_and_many_stop(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("clips/1.mp4").write_bytes(Path("clips/1.mp4").read_bytes()[:700])
    assert main(["data", "prepare", "clips", "-o", "latents", *SMALL]) == 0
    shown = capsys.readouterr().err
    assert "set aside: " in shown and "1.mp4: " in shown and "3 encoded, 1 broken (see quarantine.jsonl)" in shown
    assert len(LatentCache.open("latents")) == 3
    Path("clips/2.mp4").write_text("words")
    assert main(["data", "prepare", "clips", "-o", "again", *SMALL]) == 2
    assert "2 of 4 clips are broken, more than 5%: the run stops" in capsys.readouterr().err


def test_several_processes_fill_one_cache(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prepare", "clips", "-o", "latents", "--workers", "2", *SMALL]) == 0
    shown = capsys.readouterr()
    assert shown.out == "latents\n" and "encoding clips: 4/4" in shown.err
    assert main(["data", "prepare", "clips", "-o", "straight", *SMALL]) == 0
    for path in Path("straight").rglob("*.*"):
        assert path.read_bytes() == (Path("latents") / path.relative_to("straight")).read_bytes()
    capsys.readouterr()
    assert main(["data", "prepare", "clips", "-o", "latents", "--workers", "2", *SMALL, "-W", "40"]) == 2
    assert "width: its pictures have another width (32, expected 40)" in capsys.readouterr().err


def test_torchrun_says_which_share(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        assert not Path("latents/index.jsonl").exists()
        assert main(["data", "prepare", "clips", "-o", "latents", *SMALL, "--keep-every", "2", "--buckets"]) == 0
        assert "encoding clips: 2/2" in capsys.readouterr().err
    cache = LatentCache.open("latents")
    assert [cache.num_frames(index) for index in range(4)] == [1, 2, 2, 3]
    assert cache.size(0) == (40, 24)


def test_ctrl_c_keeps_finished_clips(here: Path) -> None:
    for number in range(4, 300):
        shutil.copyfile("clips/3.mp4", f"clips/{number}.mp4")
    process = start("clips", "-o", "latents", *SMALL)
    began = time.monotonic()
    while not list(Path().glob("latents/clips/*/*.safetensors")):
        assert process.poll() is None and time.monotonic() - began < 120
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    kept = len(list(Path().glob("latents/clips/*/*.safetensors")))
    assert f"Stopped. {kept} finished clip" in err and "Traceback" not in err
    assert 0 < kept < 300 and not list(Path().glob("latents/**/*.partial"))
