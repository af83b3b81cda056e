"""Frames in between: a moving square is where it should be, own frames stay as they are, in any chunks and lengths."""

import av.filter
import numpy as np
import pytest

from stillmotion.data import Interpolator, require_interpolation
from stillmotion.errors import ConfigError

SIDE, SQUARE = 64, 16


def moving(places: list[int]) -> np.ndarray:
    """Return frames of a red square whose left edge is at `places`, round and round."""
    frames = np.full((len(places), SIDE, SIDE, 3), (30, 60, 30), np.uint8)
    for frame, place in zip(frames, places, strict=True):
        frame[20 : 20 + SQUARE, [(place + x) % SIDE for x in range(SQUARE)]] = (220, 40, 40)
    return frames


def between(frames: np.ndarray, factor: int, *, closed: bool = False, chunk: int = 100) -> np.ndarray:
    interpolator = Interpolator(factor, closed=closed)
    parts = [interpolator.add(frames[at : at + chunk]) for at in range(0, len(frames), chunk)]
    return np.concatenate([*parts, interpolator.finish()])


def edges(frame: np.ndarray) -> tuple[int, int]:
    """Return the first and last column of the square."""
    columns = np.flatnonzero((frame[..., 0] > 120).sum(0) > 4)
    return int(columns[0]), int(columns[-1])


@pytest.mark.parametrize("factor", [2, 4])
def test_a_square_is_where_it_is_in_between(factor: int) -> None:
    own = moving(list(range(8, 40, 4)))
    made = between(own, factor)
    assert made.shape == (len(own) * factor, SIDE, SIDE, 3) and made.dtype == np.uint8
    for index, frame in enumerate(made):
        place = min(8 + 4 * index / factor, 36)
        found = edges(frame)
        assert abs(found[0] - place) <= 1 and abs(found[1] - place - SQUARE + 1) <= 1, index
    assert np.array_equal(made[::factor], own)
    # The last frame stands for as long as it did.
    assert all(np.array_equal(frame, own[-1]) for frame in made[-factor:])


def test_a_closed_loop_is_led_back_to_its_first_frame() -> None:
    there = list(range(10, 26, 4))
    own = moving([*there, 26, *reversed(there[1:])])  # there and back, so that the last leads to the first
    made = between(own, 2, closed=True)
    assert np.array_equal(made[::2], own)
    assert [edges(frame)[0] for frame in made[-2:]] == pytest.approx([14, 12], abs=1)
    assert edges(made[1])[0] == pytest.approx(12, abs=1)


def test_chunks_do_not_matter_and_frames_come_as_they_are_ready() -> None:
    own = moving(list(range(4, 40, 4)))
    whole = between(own, 3)
    assert np.array_equal(between(own, 3, chunk=1), whole) and np.array_equal(between(own, 3, chunk=4), whole)
    interpolator, ready = Interpolator(3), 0
    for index in range(len(own)):
        ready += len(interpolator.add(own[index : index + 1]))
        assert ready >= 3 * (index - 1)


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (24, 40), (33, 17)])
def test_short_clips_of_any_size(size: tuple[int, int], closed: bool) -> None:
    own = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    made = between(own, 2, closed=closed)
    assert made.shape == (4, *size, 3) and np.array_equal(made[::2], own)


def test_a_cut_is_not_blended() -> None:
    own = np.concatenate([np.full((4, 32, 32, 3), 10, np.uint8), np.full((4, 32, 32, 3), 240, np.uint8)])
    made = between(own, 2)
    assert set(np.unique(np.round(made[7].astype(float), -1))) <= {10.0, 240.0}


def test_nothing_to_do_and_what_cannot_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    own = moving([0, 4])
    assert Interpolator(1).add(own) is own and not len(Interpolator(1).finish())
    with pytest.raises(ConfigError, match="interpolate: expected a factor of 1 or more, got 0"):
        Interpolator(0)
    with pytest.raises(ConfigError, match="interpolate: expected a clip of 2 frames or more, got 1"):
        between(own[:1], 2)
    monkeypatch.setattr(av.filter, "filters_available", {"scale"})
    Interpolator(1)
    for refused in (require_interpolation, lambda: Interpolator(2)):
        with pytest.raises(ConfigError, match=r"interpolate: .*filter minterpolate, which is not in the FFmpeg"):
            refused()
