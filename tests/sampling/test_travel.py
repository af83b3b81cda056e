"""Keyframes and prompts that travel between them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillmotion.errors import ConfigError
from stillmotion.sampling import Place, TravellingText, by_frame, curve, places


def test_between_keys_on_a_line_and_at_rest_outside() -> None:
    assert curve({2: 0.0, 4: 1.0, -2: 3.0}, 10, "x") == (0, 0, 0, 0.5, 1, 1.5, 2, 2.5, 3, 3)


def test_a_prompt_holds_before_it_blends() -> None:
    shares = [place.share for place in places([0, 10], 11, hold=0.5)]
    assert shares[:6] == [0] * 6 and shares[6:10] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert places([0, 10], 11, hold=0.5)[10] == Place(1, 1)
    assert [place.first for place in places([0, 4], 6, hold=1.0)] == [0, 0, 0, 0, 1, 1]
    assert all(place.first == place.second for place in places([0, 4], 6, hold=1.0))


def test_in_a_closed_loop_the_last_key_travels_to_the_first() -> None:
    assert curve({0: 0.0, 4: 1.0}, 8, "x", closed=True) == (0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25)
    assert curve({2: 0.0, 6: 1.0}, 8, "x", closed=True) == (0.5, 0.25, 0, 0.25, 0.5, 0.75, 1, 0.75)


@settings(max_examples=40, deadline=None)
@given(
    keys=st.dictionaries(st.integers(0, 19), st.floats(-5, 5), min_size=1),
    num_frames=st.integers(20, 60),
    hold=st.floats(0, 1),
    closed=st.booleans(),
)
def test_shares_are_shares(keys: dict[int, float], num_frames: int, hold: float, closed: bool) -> None:
    told = places(sorted(keys), num_frames, hold=hold, closed=closed)
    assert len(told) == num_frames and all(0 <= place.share < 1 for place in told)
    assert all(told[key] == Place(index, index) for index, key in enumerate(sorted(keys)))
    values = curve(keys, num_frames, "x", closed=closed)
    assert min(keys.values()) - 1e-9 <= min(values) and max(values) <= max(keys.values()) + 1e-9


@pytest.mark.parametrize(
    ("keyed", "said"),
    [
        ({8: 1}, r"^x\.8: expected a frame from 0 to 7, or from -8 to -1"),
        ({-9: 1}, r"^x\.-9: expected a frame"),
        ({7: 1, -1: 2}, r"^x\.-1: frame 7 is given twice"),
        ({}, "^x: expected a frame at least, got none"),
    ],
)
def test_a_wrong_key_is_named(keyed: dict[int, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        by_frame(keyed, 8, "x")


@pytest.mark.parametrize("blend", ["linear", "slerp"])
def test_a_key_frame_has_its_text_to_the_bit(blend: str) -> None:
    features = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0))
    text = TravellingText(features, places([0, 4, 9], 12), blend)
    assert torch.equal(text.rows([0, 4, 9, 11]), features[[0, 1, 2, 2]])
    between = text.rows(range(12))
    assert torch.equal(text.rows([6, 2]), between[[6, 2]])
    assert text.at_rest([9, 10, 11]) and not text.at_rest([8, 9])
    if blend == "linear":
        torch.testing.assert_close(between[1], features[0] * 0.75 + features[1] * 0.25)


def test_slerp_goes_along_the_arc_and_through_parallels() -> None:
    features = torch.tensor([[[1.0, 0.0], [2.0, 0.0]], [[0.0, 1.0], [4.0, 0.0]]])
    middle = TravellingText(features, places([0, 2], 3), "slerp").rows([1])[0]
    torch.testing.assert_close(middle, torch.tensor([[0.5**0.5, 0.5**0.5], [3.0, 0.0]]))
