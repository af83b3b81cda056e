"""What a validation says of motion."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillmotion.seeding import generator
from stillmotion.training.denoising import appearance_debiased, shared_motion

SHAPE = (1, 4, 6, 3, 3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), amount=st.floats(0.01, 100))
def test_what_moves_alike_shares_all_motion_however_it_looks(seed: int, amount: float) -> None:
    clip = torch.randn(SHAPE, generator=generator(seed, "clip", 0))
    look = torch.randn((1, 4, 1, 3, 3), generator=generator(seed, "look", 0))
    assert shared_motion(amount * clip + look, clip) == pytest.approx(1, abs=1e-3)
    assert shared_motion(-amount * clip + look, clip) == pytest.approx(-1, abs=1e-3)
    assert abs(shared_motion(look.expand(SHAPE), clip)) < 1e-6
    assert torch.allclose(appearance_debiased(clip + look) - appearance_debiased(clip), (2**0.5 - 1) * look, atol=1e-5)
