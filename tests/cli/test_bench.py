"""The timings run and say what they measured; how fast it is, is not a test's business."""

import pytest

from stillmotion import bench
from stillmotion.cli import bench as verbs
from stillmotion.cli.door import main


def test_bench_step_says_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", "--size", "tiny", "--pairs", "1", "--frames", "2", "--side", "8"]) == 0
    told = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert {"step", "stillmotion", "diffusers", "faster", "motion", "matrix rate", "difference"} == set(told)
    assert float(told["difference"].split()[0]) < 1e-5


def test_bench_plug_copies_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "plug", "--size", "tiny", "--times", "2"]) == 0
    ours, theirs = capsys.readouterr().out.splitlines()
    assert ours.endswith(" 0 MB copied")
    assert not theirs.endswith(" 0 MB copied")


def test_sizes_are_all_offered() -> None:
    assert set(verbs.SIZES) == set(bench.SIZES)


def test_bench_train_says_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    shape = ["--frames", "2", "--pixels", "64", "--pairs", "1", "--threads", "1"]
    assert main(["bench", "train", "--size", "tiny", *shape, "--no-memory"]) == 0
    told = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert {"step", "models", "stillmotion", "plain loop", "faster", "encoding", "cache"} == set(told)
    assert "1 clip of 2 frames, 64x64, float32, 1 threads" in told["step"]
    assert "UNet 64-128-128-128, VAE 32-64-64-64" in told["models"]
    assert "s of the plain loop's step: without, it would be 1." in told["encoding"]
    assert "16 frames encoded once" in told["cache"]


def test_bench_train_tells_the_peaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def measured(*_: object, checkpointing: bool) -> bench.StepMemory:
        return bench.StepMemory(peak=3 * 10**9 if checkpointing else 6 * 10**9, before=2 * 10**9, weights=10**9)

    monkeypatch.setattr("stillmotion.bench.training.step_memory", measured)
    assert main(["bench", "train", "--size", "tiny", "--frames", "2", "--pixels", "64", "--pairs", "1"]) == 0
    told = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert "MotionLoRA of rank 64" in told["memory"] and "all weights 1.00 GB" in told["memory"]
    assert told["without"].strip().startswith("6.00 GB at the peak of a step, 4.00 GB of it since before")
    assert told["with"].strip().startswith("3.00 GB at the peak of a step, 1.00 GB of it since before")
    assert told["less"].strip() == "0.50 of the peak"


def test_bench_train_refuses_what_cannot_be_timed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "train", "--size", "tiny", "--pairs", "0"]) == 2
    assert "--pairs: expected an integer >= 1, got 0" in capsys.readouterr().err
    assert main(["bench", "train", "--size", "tiny", "--pixels", "100", "--frames", "0"]) == 2
    shown = capsys.readouterr().err
    assert "num_frames: expected an integer >= 1, got 0" in shown
    assert "pixels: expected an integer from 32 to 1024 that is a multiple of 8, got 100" in shown
    assert "timing" not in shown
