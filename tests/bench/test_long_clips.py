"""Long clips against short ones: where the borders of windows are, what a jump of the flow is, and what the figures say."""

import numpy as np
import pytest

from stillmotion.bench import ClipCost, LongShape, LongTiming
from stillmotion.bench.long_clips import borders, flow_jumps
from stillmotion.cli.door import main
from stillmotion.errors import ConfigError
from stillmotion.sampling import Context


def test_borders_are_where_a_window_begins_or_ends() -> None:
    # 0-15, 12-27, 16-31
    assert borders(Context(), 32) == {11, 15, 27}
    assert borders(Context(length=4, overlap=0), 8) == {3}
    assert borders(Context(), 16) == set()


def drawn(places: list[float]) -> list[np.ndarray]:
    """Return frames of one soft pattern, moved to the right by so many pixels."""
    x, y = np.meshgrid(np.arange(96), np.arange(96))
    frames = [
        127 + 50 * np.sin((x - place) / 3) * np.sin(y / 4) + 50 * np.sin((x - place) / 7 + y / 5) for place in places
    ]
    return [np.repeat(frame.astype(np.uint8)[..., None], 3, axis=2) for frame in frames]


def test_steady_motion_has_no_jumps_and_a_seam_has_one() -> None:
    steady = list(flow_jumps(drawn([0, 1, 2, 3, 4, 5, 6, 7])))
    assert len(steady) == 5 and max(steady) < 0.15
    seam = list(flow_jumps(drawn([0, 1, 2, 3, 6, 7, 8, 9])))  # two pixels too far, between frames 3 and 4
    assert int(np.argmax(seam)) + 1 == 3
    assert seam[2] == pytest.approx(100 * 2 / 96, rel=0.15)
    assert list(flow_jumps(drawn([0, 1, 2]))) == []


def test_the_figures_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def measured(shape: LongShape, num_threads: int | None) -> LongTiming:
        common = {"jump_elsewhere": 0.5, "seen": 1.25}
        short = ClipCost(
            num_frames=shape.short, peak=800 * 10**6, latents=10**6, seconds=8.0, jump_at_borders=0.55, **common
        )
        long = ClipCost(
            num_frames=shape.long, peak=840 * 10**6, latents=11 * 10**6, seconds=88.0, jump_at_borders=None, **common
        )
        return LongTiming(shape=shape, num_threads=num_threads or 2, short=short, long=long)

    monkeypatch.setattr("stillmotion.bench.bench_long", measured)
    assert main(["bench", "long", "--short", "8", "--long", "80", "--steps", "2", "--threads", "1"]) == 0
    told = {
        name.strip(): text.strip()
        for name, text in (line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    }
    assert told["clips"] == "toyworld, 128x128, 2 steps, windows of 16, 1 threads"
    assert told["8 frames"].startswith("800.0 MB at the peak, 1.00 MB of it latents; 1.0000 s a frame")
    assert told["memory"].startswith("1.050 of") and told["grown by"].startswith("40.0 MB, 4.0 times")
    assert told["time"].startswith("1.100 of") and told["overlap"].startswith("1.000 of")
    assert told["seams 8"].endswith("at window borders, 0.5000 % elsewhere: 1.100 times")
    assert told["seams 80"] == "too few frames, or no window border among them"


def test_a_long_clip_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="long: expected more frames than the short clip's 64, got 64"):
        LongShape(long=64)
    assert main(["bench", "long", "--steps", "0"]) == 2
    assert "steps: expected an integer >= 1, got 0" in capsys.readouterr().err


@pytest.mark.slow
def test_both_clips_are_made_and_measured(capsys: pytest.CaptureFixture[str]) -> None:
    # No fewer than a window, and than the VAE decodes at once: both would grow with the clip up to there.
    words = ["--short", "16", "--long", "32", "--steps", "1", "--threads", "1"]
    assert main(["bench", "long", *words]) == 0
    told = {
        name.strip(): text.strip()
        for name, text in (line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    }
    assert 0.9 < float(told["memory"].split()[0]) < 1.15
    assert float(told["time"].split()[0]) > 0
    assert told["seams 32"].endswith("times") and told["seams 16"].startswith("too few frames")
