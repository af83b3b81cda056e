"""The score counts what is right: the truth is, a clip that stands still is not, and the judge knows one from the other."""

import numpy as np

from stillmotion.claims.score import score, score_truth, summarise
from stillmotion.toyworld import draw_clips, parse


def drawn(caption: str, seed: int) -> np.ndarray:
    """Return the drawn truth of a caption, as bytes (frames, height, width, 3)."""
    pixels = draw_clips([parse(caption)], seed=seed, indices=[0]).pixels[0]
    return ((pixels + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 3, 0).numpy()


def test_the_truth_is_right() -> None:
    summary = summarise(list(score_truth(count=30)))
    assert all(summary.right[name] >= 0.95 for name in ("colour", "place", "shape", "identity"))
    assert summary.right["motion"] >= 0.9  # angles are read less surely than the rest
    assert summary.passed


def test_what_stands_still_has_not_moved_as_it_says() -> None:
    still = list(score(count=6, make=lambda caption, seed: drawn(caption, seed)[:1].repeat(16, axis=0)))
    summary = summarise(still)
    assert summary.right["motion"] == 0
    assert summary.right["place"] == 1
    assert not summary.passed
    assert sum(asked for _, asked in summary.by_motion.values()) == 6
