"""Context windows: what must hold for all of them, and the lists of the programs they come from."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillmotion.errors import ConfigError
from stillmotion.sampling import Context
from stillmotion.sampling.context import ordered_halving


@st.composite
def contexts(draw: st.DrawFn) -> Context:
    length = draw(st.integers(1, 24))
    schedule = draw(st.sampled_from(["static", "uniform", "looped"]))
    return Context(
        schedule=schedule,
        length=length,
        overlap=draw(st.none() | st.integers(0, length - 1)),
        dilation=1 if schedule == "static" else draw(st.sampled_from([1, 2, 4, 8])),
        fusion=draw(st.sampled_from(["flat", "pyramid", "overlap_linear"])),
        closed=schedule == "looped" and draw(st.booleans()),
    )


@settings(max_examples=150, deadline=None)
@given(context=contexts(), num_frames=st.integers(1, 120), step=st.integers(0, 60))
def test_every_frame_is_seen_and_no_window_is_wrong(context: Context, num_frames: int, step: int) -> None:
    windows = context.windows(num_frames, step)
    total: Counter[int] = Counter()
    for window in windows:
        assert len(window.frames) == len(window.weights) == min(num_frames, context.length)
        assert len(set(window.frames)) == len(window.frames)
        assert all(0 <= frame < num_frames for frame in window.frames)
        assert all(weight > 0 for weight in window.weights)
        if context.schedule != "looped":
            assert list(window.frames) == sorted(window.frames)
        for frame, weight in zip(window.frames, window.weights, strict=True):
            total[frame] += weight
    assert sorted(total) == list(range(num_frames))
    assert all(abs(weight - 1) < 1e-9 for weight in total.values())
    assert len(set(windows)) == len(windows)
    assert context.windows(num_frames, step) == windows


def ends(context: Context, num_frames: int, step: int = 0) -> list[tuple[int, int]]:
    return [(window.frames[0], window.frames[-1]) for window in context.windows(num_frames, step)]


def test_static_windows_are_those_of_comfyui() -> None:
    assert ends(Context(), 32) == [(0, 15), (12, 27), (16, 31)]
    assert ends(Context(), 48, step=7) == [(0, 15), (12, 27), (24, 39), (32, 47)]


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, [(0, 15), (12, 27), (16, 31)]), (1, [(16, 31), (0, 15), (8, 23)]), (2, [(8, 23), (16, 31), (0, 15)])],
)
def test_uniform_windows_are_those_of_comfyui(step: int, expected: list[tuple[int, int]]) -> None:
    assert ends(Context(schedule="uniform"), 32, step) == expected


def test_looped_windows_are_those_of_animatediff_cli() -> None:
    """Their list for 32 frames: 0–15, 12–27, 24–31 with 0–7; and every second frame with a hop of 2·16 − 4."""
    *_, last = Context(schedule="looped").windows(32)
    assert ends(Context(schedule="looped"), 32) == [(0, 15), (12, 27), (24, 7)]
    assert last.frames == (*range(24, 32), *range(8))
    wide = Context(schedule="looped", dilation=2).windows(64)
    assert [w.frames[0] for w in wide] == [0, 12, 24, 36, 48, 60, 0, 28, 56]
    assert wide[-1].frames == (*range(56, 64, 2), *range(0, 24, 2))


@pytest.mark.parametrize(
    ("schedule", "overlap", "expected"),
    [
        ("static", 4, [3, 4, 5, 8, 11, 21]),
        ("static", 8, [3, 5, 7, 11, 15, 31]),
        ("uniform", 4, [3.35, 4.6, 5.5, 8.6, 11.25, 21.35]),
    ],
)
def test_passes_per_step(schedule: str, overlap: int, expected: list[float]) -> None:
    context = Context(schedule=schedule, overlap=overlap)
    assert [sum(context.passes(n, 20)) / 20 for n in (32, 48, 64, 96, 128, 256)] == expected


def test_a_grid_moves_by_bits_reversed() -> None:
    assert [ordered_halving(step) for step in range(5)] == [0, 0.5, 0.25, 0.75, 0.125]


def test_weights_of_each_fusion() -> None:
    def raw(fusion: str) -> tuple[float, ...]:
        first, second = Context(length=6, overlap=2, fusion=fusion).windows(10)
        assert first.weights[:4] == (1, 1, 1, 1) and second.weights[2:] == (1, 1, 1, 1)
        return first.weights[4:]

    assert raw("flat") == (0.5, 0.5)
    assert raw("pyramid") == pytest.approx((2 / 3, 1 / 3))
    assert raw("overlap_linear") == pytest.approx((2 / 3, 1 / 3))
    middle = Context(length=6, overlap=2, fusion="overlap_linear").windows(14)[1]
    assert middle.weights[2:4] == (1, 1)


def test_a_closed_clip_that_fits_has_two_windows_half_a_round_apart() -> None:
    context = Context(schedule="looped", closed=True)
    assert [ends(context, 8, step) for step in range(3)] == [[(0, 7), (4, 3)], [(4, 3), (0, 7)], [(2, 1), (6, 5)]]
    first, second = context.windows(8)
    assert first.weights[0] == pytest.approx(1 / 5) and second.weights[4] == pytest.approx(4 / 5)  # both are frame 0
    assert Context(schedule="looped").windows(8, 3)[0].frames == tuple(range(8))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"overlap": 16},
            "context_overlap: expected an integer from 0 to 15, since each window of 16 frames must begin",
        ),
        ({"length": 8, "overlap": 12}, "context_overlap: .* got 12"),
        ({"overlap": -1}, "context_overlap: .* got -1"),
        ({"length": 0}, "context_length: expected an integer >= 1, got 0"),
        ({"dilation": 3, "schedule": "looped"}, "context_dilation: expected a power of two"),
        ({"dilation": 2}, "context_dilation: the windows of a static schedule are of adjacent frames, got 2"),
        ({"closed": True, "schedule": "uniform"}, "loop: a closed loop needs windows that wrap, got context uniform"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Context(**wrong)
