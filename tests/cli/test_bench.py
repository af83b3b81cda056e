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
