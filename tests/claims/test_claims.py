"""The claims: figures say what they are held to, the report tells them, and C1 falls when no motion is plugged in."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillmotion.claims import moving
from stillmotion.claims.all_claims import CLAIMS
from stillmotion.claims.cameras import camera_in
from stillmotion.claims.filming import Frames, Studio
from stillmotion.claims.finding import Budget, Figure, Finding
from stillmotion.claims.kept import keep, kept
from stillmotion.claims.report import report
from stillmotion.data import CAMERA_MOTIONS, CameraMotion
from stillmotion.training.drawn import NUM_FRAMES, SLOWER, DrawnFootage


def test_a_figure_holds_what_is_asked_of_it() -> None:
    figure = Figure(name="right", values=[1, 1, 1, 0], at_least=0.7, as_share=True)
    assert (figure.mean, figure.holds, figure.wanted) == (0.75, True, "at least 70.0%")
    low, high = figure.interval or (math.nan, math.nan)
    assert low <= 0.75 <= high
    assert not Figure(name="right", values=[1, 0], at_least=0.7).holds
    assert not Figure(name="wrong", values=[0.5, 0.3], at_most=0.3).holds
    assert not Figure(name="none", values=[], at_least=0.0).holds


def test_the_report_tells_every_figure() -> None:
    good = Figure(name="moves", values=[1, 1], at_least=0.9, as_share=True)
    bad = Figure(name="stays", values=[0.5, 0.7], at_most=0.4)
    told = report({"C1": (Finding(figures=(good, bad)), 90.0), "C9": (Finding(figures=(good,)), 30.0)})
    assert f"| C1 {CLAIMS['C1'].sentence} | no | 1.5 |" in told
    assert "| moves | 100.0% | 100.0% to 100.0% | 2 | at least 90.0% |" in told
    assert "| at most 0.4: no |" in told
    assert CLAIMS["C9"].note in told
    assert f"| C8 {CLAIMS['C8'].sentence} | not measured |  |" in told


@pytest.mark.parametrize("name", CAMERA_MOTIONS)
def test_a_drawn_camera_goes_where_it_says(name: str) -> None:
    footage = DrawnFootage(8, seed=3, size=128, camera=CameraMotion.parse(name))
    standing = next(i for i in range(8) if not any(word in footage.item(i).caption for word in ("ing",)))
    frames = footage.frames(standing, range(0, NUM_FRAMES, SLOWER))
    seen = camera_in(frames)
    assert seen
    assert [motion for motion in CAMERA_MOTIONS if seen.goes(motion)] == [name]
    back, still = camera_in(frames[::-1]), camera_in(np.repeat(frames[:1], 4, 0))
    assert back
    assert still
    assert not back.goes(name)
    assert not still.goes(name)


def test_c1_falls_without_the_motion_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """On two captions and few steps; the report's own run is long."""
    budget, made = Budget(share=0.01, num_inference_steps=8), []

    def unplugged(studio: Studio, prompt: str, seed: int, **fields: Any) -> Frames:
        made.append(prompt)
        return film(studio, prompt, seed, **{**fields, "motion_strength": 0.0, "num_frames": 6})

    film = Studio.film
    monkeypatch.setattr(Studio, "film", unplugged)
    *progress, finding = moving.measure(budget)
    assert isinstance(finding, Finding)
    assert len(made) == len(progress) == 4
    assert not finding.holds
    assert not finding.figures[0].holds


def test_a_finding_is_kept_for_the_same_clips_of_the_same_weights(tmp_path: Path) -> None:
    finding = Finding(figures=(Figure(name="right", values=[True, False], at_least=0.4, as_share=True),))
    claim, budget = CLAIMS["C1"], Budget(share=0.1, folder=tmp_path)
    assert kept(claim, budget) is None
    keep(claim, budget, finding, 12.5)
    assert kept(claim, budget) == (finding, 12.5)
    assert kept(claim, replace(budget, share=0.2)) is None
    assert kept(replace(claim, measured="Something else."), budget) is None
    assert kept(CLAIMS["C8"], budget) is None
    (tmp_path / "findings" / "C1.json").write_text('{"made_of"')
    assert kept(claim, budget) is None
