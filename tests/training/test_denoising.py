"""What a validation says of motion, and where timesteps lie."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillmotion.seeding import generator
from stillmotion.training.denoising import Weighing, appearance_debiased, shared_motion

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


@settings(max_examples=20, deadline=None)
@given(bias=st.floats(1, 8))
def test_half_of_the_timesteps_are_drawn_from_the_noisiest_that_the_bias_names(bias: float) -> None:
    even = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    drawn = Weighing(timestep_bias=bias).biased(even)
    assert (drawn > 1 - 2**-bias).sum() == 500
    assert 0 <= drawn.min() < drawn.max() <= 1
    assert (drawn.diff() >= 0).all()  # so that the parts of a batch keep their order
    assert torch.equal(Weighing().biased(even), even)  # unless told, all alike: Eq. 7
