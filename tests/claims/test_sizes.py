"""C9 reads other sizes and lengths, and falls without the motion module."""

from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.claims.drawn import truth

from stillmotion.claims import sizes
from stillmotion.claims.filming import Frames, Studio
from stillmotion.claims.finding import Budget, Finding
from stillmotion.claims.score import drawn_scenes, read_clip
from stillmotion.toyworld import load_judge
from stillmotion.toyworld.world import draw_clips

SMALL = (
    sizes.Case(name="64x96", count=2, fields={"width": 64, "height": 96, "num_frames": 4}),
    sizes.Case(name="5 frames", count=2, fields={"num_frames": 5}),
)


def test_half_of_a_drawn_clip_moves_as_the_whole() -> None:
    judge, right = load_judge(), []
    for index, scene in enumerate(drawn_scenes(16, seed=3)):
        pixels = draw_clips([scene], seed=3, indices=[index]).pixels[0, :, :8]
        frames = ((pixels + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy()
        right.append(read_clip(judge, frames, scene).motion)
        assert not read_clip(judge, frames[:1].repeat(8, axis=0), scene).motion
    assert np.mean(right) >= 0.85


def test_both_ends_of_a_long_clip_are_read() -> None:
    judge, (scene, *_) = load_judge(), drawn_scenes(1, seed=3)
    moving = truth(scene.caption, 3)
    standing = moving[-1:].repeat(16, axis=0)
    assert sizes.moves_as_said(judge, moving, scene) == 1
    assert sizes.moves_as_said(judge, np.concatenate([moving, moving]), scene) == 1
    assert sizes.moves_as_said(judge, np.concatenate([moving, standing]), scene) == 0.5
    assert sizes.moves_as_said(judge, np.concatenate([standing, standing[:8]]), scene) == 0


def test_c9_holds_for_what_moves_as_it_is_told_in_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    def film(_: Studio, prompt: str, seed: int, **fields: Any) -> Frames:
        count, size = fields.get("num_frames", 16), (fields.get("width", 128), fields.get("height", 128))
        # 24 frames take the whole motion slower, 32 do it twice.
        frames = truth(prompt, seed, 24) if count == 24 else np.concatenate([truth(prompt, seed)] * 2)[:count]
        return np.stack([np.asarray(Image.fromarray(frame).resize(size)) for frame in frames])

    monkeypatch.setattr(Studio, "film", film)
    *progress, finding = sizes.measure(Budget(share=0.15))
    assert isinstance(finding, Finding)
    assert len(progress) == 12
    assert sum(bool(figure.limits) for figure in finding.figures) == 5
    assert finding.holds


def test_c9_falls_without_the_motion_module(monkeypatch: pytest.MonkeyPatch) -> None:
    def unplugged(studio: Studio, prompt: str, seed: int, **fields: Any) -> Frames:
        frames = film(studio, prompt, seed, **fields, motion_strength=0.0)
        shapes.append(frames.shape[:3])
        return frames

    film, shapes = Studio.film, []
    monkeypatch.setattr(Studio, "film", unplugged)
    monkeypatch.setattr(sizes, "CASES", SMALL)
    *progress, finding = sizes.measure(Budget(num_inference_steps=4))
    assert isinstance(finding, Finding)
    assert len(progress) == 4
    assert shapes == [(4, 96, 64)] * 2 + [(5, 128, 128)] * 2
    assert not finding.holds
