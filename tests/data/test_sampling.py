"""Which frames are taken, how they come to size, and when mirroring would lie."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillmotion.data import ClipRecipe, check_flip, fit, nearest_size, positions
from stillmotion.data.sampling import bucket_sizes, flipped, long_enough
from stillmotion.errors import ConfigError
from stillmotion.seeding import generator

SIDES = st.integers(1, 64).map(lambda side: 8 * side)


@given(
    available=st.integers(0, 200),
    num_frames=st.integers(1, 32),
    stride=st.integers(1, 8),
    short=st.sampled_from(["skip", "loop", "stretch"]),
    draw=st.integers(0, 99),
)
def test_positions_are_frames_of_the_clip(available: int, num_frames: int, stride: int, short: str, draw: int) -> None:
    recipe = ClipRecipe(num_frames=num_frames, frame_stride=stride, short_clips=short)
    taken = positions(available, recipe, generator(0, "start", draw))
    assert (taken is not None) == long_enough(available, recipe)
    assert taken == positions(available, recipe, generator(0, "start", draw))
    if taken is None:
        assert available == 0 or (short == "skip" and available < recipe.span)
        return
    assert len(taken) == num_frames and min(taken) >= 0 and max(taken) < available
    if available >= recipe.span:
        assert np.diff(taken).tolist() == [stride] * (num_frames - 1)
    elif short == "stretch":
        assert (taken[0], taken[-1]) == (0, available - 1) and taken == sorted(taken)
    else:
        assert all((after - before - stride) % available == 0 for before, after in itertools.pairwise(taken))


def test_every_start_is_drawn_about_as_often() -> None:
    recipe = ClipRecipe(num_frames=4, frame_stride=2)
    starts = [positions(11, recipe, generator(7, "start", index))[0] for index in range(500)]
    counts = np.bincount(starts, minlength=5)
    assert len(counts) == 5 and counts.min() > 60


def test_a_clip_of_one_frame() -> None:
    chance = generator(0, "start")
    assert positions(1, ClipRecipe(), chance) is None
    assert positions(1, ClipRecipe(short_clips="loop"), chance) == [0] * 16
    assert positions(1, ClipRecipe(short_clips="stretch"), chance) == [0] * 16
    assert positions(1, ClipRecipe(num_frames=1), chance) == [0]
    assert positions(0, ClipRecipe(short_clips="loop"), chance) is None


@given(
    old=st.tuples(st.integers(1, 90), st.integers(1, 90)), new=st.tuples(SIDES, SIDES).filter(lambda s: max(s) < 129)
)
def test_fit_gives_the_size_and_the_range(old: tuple[int, int], new: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (2, *old, 3), np.uint8, endpoint=True)
    fitted = fit(frames, *new)
    assert fitted.shape == (2, 3, new[1], new[0]) and fitted.dtype == torch.float32
    assert fitted.min() >= -1 and fitted.max() <= 1
    assert torch.equal(fitted[:1], fit(frames[:1], *new))  # whatever frames are beside it


def test_fit_crops_the_centre_and_leaves_what_fits() -> None:
    same = np.random.default_rng(0).integers(0, 255, (1, 16, 24, 3), np.uint8, endpoint=True)
    back = ((fit(same, 24, 16) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    assert (back == same).all()
    assert torch.equal(fit(same, 24, 16, flip=True), fit(np.ascontiguousarray(same[:, :, ::-1]), 24, 16))
    wide = np.zeros((1, 32, 96, 3), np.uint8)
    wide[:, :, 32:64] = 255  # the middle third is white, and all that is left of it
    assert fit(wide, 16, 16).min() > 0.5
    # Stripes of one pixel become grey when shrunk four times: without antialiasing they would stay stripes.
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 255
    assert fit(stripes, 16, 16)[..., 2:-2].abs().max() < 0.05


@given(width=SIDES, height=SIDES)
def test_buckets_have_the_area(width: int, height: int) -> None:
    sizes, area = bucket_sizes(width, height), width * height
    assert (width, height) in sizes and len(set(sizes)) == len(sizes)
    assert list(sizes) == sorted(sizes, key=lambda size: size[0] / size[1])
    step = 64 if area >= 256**2 else 8
    for across, down in set(sizes) - {(width, height)}:
        assert across % step == down % step == 0
        assert abs(across * down / area - 1) <= 0.25
        assert max(across, down) <= 2 * min(across, down)


@given(width=st.integers(1, 4000), height=st.integers(1, 4000))
def test_the_nearest_bucket_is_the_nearest_in_aspect(width: int, height: int) -> None:
    sizes = bucket_sizes(256, 256)
    chosen = nearest_size(width, height, sizes)
    off = [abs(math.log(across / down) - math.log(width / height)) for across, down in sizes]
    assert abs(math.log(chosen[0] / chosen[1]) - math.log(width / height)) == pytest.approx(min(off))
    assert nearest_size(width, height, sizes[::-1]) == chosen


def test_the_recipe_names_its_sizes() -> None:
    assert ClipRecipe().sizes == ((256, 256),)
    assert ClipRecipe.from_dict({"buckets": "[[256, 256], [320, 192]]"}).sizes == ((256, 256), (320, 192))
    sizes = ClipRecipe(buckets=True, width=512, height=512).sizes
    assert sizes == ((384, 704), (448, 576), (512, 512), (576, 448), (704, 384))
    assert all(side % 64 == 0 for size in sizes for side in size)
    with pytest.raises(ConfigError, match=r"buckets: expected sides that are multiples of 8, got \[250, 256\]"):
        ClipRecipe(buckets=((250, 256),))
    with pytest.raises(ConfigError, match=r"short_clips: expected one of skip, loop, stretch"):
        ClipRecipe(short_clips="drop")


def test_flips_are_off_unless_asked_and_then_even() -> None:
    assert not any(flipped(ClipRecipe(), generator(0, "flip", index)) for index in range(20))
    recipe = ClipRecipe(horizontal_flip=True)
    assert 60 < sum(flipped(recipe, generator(0, "flip", index)) for index in range(200)) < 140


@pytest.mark.parametrize(
    "caption",
    ["a ball rolling LEFT", "pans right-hand side", "moving leftwards", "turning anti-clockwise", "a clockwise roll"],
)
def test_a_flip_that_would_lie_is_refused(caption: str) -> None:
    recipe = ClipRecipe(horizontal_flip=True)
    with pytest.raises(ConfigError, match=r"horizontal_flip: .*captions speak of sides"):
        check_flip(recipe, ["a bright, upright copyright notice", caption])
    check_flip(ClipRecipe(), [caption], directional=True)  # nothing is flipped
    check_flip(recipe, ["a bright, upright copyright notice", "cleft lips"])
    with pytest.raises(ConfigError, match=r"horizontal_flip: .*moves the other way"):
        check_flip(recipe, [], directional=True)
