"""C6 counts what it should: the truth beats spoilt clips in pairs, and nothing beats its equal."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.claims.drawn import blinking, pictures, truth

from stillmotion.baselines import BaselineConfig, TuneAVideoConfig
from stillmotion.claims import rivals
from stillmotion.claims.filming import Frames, Studio
from stillmotion.claims.finding import Budget, Finding, Progress
from stillmotion.data import probe
from stillmotion.toyworld.language import MOTIONS, parse

BUDGET = Budget(share=3 / rivals.COUNT)  # three captions


def found(monkeypatch: pytest.MonkeyPatch, *, equal: bool = False, unplugged: bool = False) -> Finding:
    """Measure the drawn truth against clips that stand still and blink, or against itself; or pictures that do not move."""

    def film(_: Studio, prompt: str, seed: int, **fields: Any) -> Frames:
        return (
            pictures(prompt, fields.get("num_frames", 16))
            if unplugged or "num_frames" in fields
            else truth(prompt, seed)
        )

    def film_baseline(_: Studio, config: BaselineConfig) -> Frames:
        frames = truth(config.prompt, config.seed or 0)
        if isinstance(config, TuneAVideoConfig):
            taught = parse(config.video_prompt)
            assert taught.motion == parse(config.prompt).motion
            assert (taught.shape, taught.colour) != (parse(config.prompt).shape, parse(config.prompt).colour)
            assert probe(config.video).num_frames == config.num_frames
        return frames if equal or unplugged else blinking(frames[:1].repeat(16, axis=0))

    monkeypatch.setattr(Studio, "film", film)
    monkeypatch.setattr(Studio, "film_baseline", film_baseline)
    *progress, finding = rivals.measure(BUDGET)
    assert isinstance(finding, Finding)
    told = [one for one in progress if isinstance(one, Progress)]
    assert [one.done for one in told] == list(range(1, 10))
    assert {one.total for one in told} == {9}
    return finding


def test_what_is_better_in_every_pair_is_surely_better(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = found(monkeypatch, equal=False)
    assert finding.holds
    assert sum(bool(figure.limits) for figure in finding.figures) == 8
    assert all(len(figure.values) == 3 for figure in finding.figures)


def test_equals_do_not_beat_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = found(monkeypatch, equal=True)
    asked = [figure for figure in finding.figures if figure.limits]
    assert [figure.mean for figure in asked] == [0.0] * len(asked)
    assert not any(figure.holds for figure in asked)


def test_animatediff_does_not_win_without_its_motion_module(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = found(monkeypatch, unplugged=True)
    asked = [figure for figure in finding.figures if figure.limits]
    assert not any(figure.holds for figure in asked if "domain" not in figure.name)  # its pictures are the model's own


def test_captions_take_the_motions_in_turn() -> None:
    scenes = rivals.scenes_of(10, seed=7)
    assert [scene.motion for scene in scenes] == [*MOTIONS, *MOTIONS]
    assert rivals.scenes_of(3, seed=7) == scenes[:3]
    taught = [rivals.tuning_scene(scene.motion, scenes, seed=7) for scene in scenes]
    assert taught[:5] == taught[5:]
    assert all(a.motion != b.motion for a, b in pairwise(taught))


@pytest.mark.slow
def test_the_three_methods_make_their_clips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rivals, "TUNING_STEPS", 2)
    *_, finding = rivals.measure(Budget(share=0.01, num_inference_steps=3, sheets=tmp_path))
    assert isinstance(finding, Finding)
    assert all(len(figure.values) == 2 for figure in finding.figures)
    assert len(list(tmp_path.glob("C6-*.png"))) == 8
