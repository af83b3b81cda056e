"""Noise of long clips, and FreeInit's filter against diffusers' own."""

import pytest
import torch
from diffusers.pipelines.free_init_utils import FreeInitMixin

from stillmotion.errors import ConfigError
from stillmotion.sampling import Context, clip_noise, low_pass, remix
from stillmotion.sampling.noise import noise_sources
from stillmotion.seeding import frame_noise

SHAPE = (4, 2, 2)


@pytest.mark.parametrize("kind", ["independent", "repeated", "freenoise"])
def test_a_longer_clip_begins_with_the_shorter_ones_noise(kind: str) -> None:
    longer = clip_noise(5, 64, SHAPE, kind)
    for frames in (1, 16, 30, 32):
        assert torch.equal(longer[:, :, :frames], clip_noise(5, frames, SHAPE, kind))
    assert torch.equal(longer[:, :, :16], frame_noise(5, range(16), SHAPE))
    assert longer.shape == (1, 4, 64, 2, 2)


def test_repeated_noise_repeats_and_freenoise_shuffles_each_stretch() -> None:
    context = Context(length=8, overlap=4)
    assert noise_sources(0, 20, "repeated", context) == [*range(8), *range(8), 0, 1, 2, 3]
    shuffled = noise_sources(0, 24, "freenoise", context)
    assert shuffled[:8] == list(range(8))
    for start in range(8, 24, 4):
        assert sorted(shuffled[start : start + 4]) == sorted(shuffled[start - 8 : start - 4])
    assert shuffled[8:12] != [0, 1, 2, 3] or shuffled[12:16] != [4, 5, 6, 7]
    assert shuffled != noise_sources(1, 24, "freenoise", context)


def test_every_window_of_freenoise_has_the_noise_of_the_first() -> None:
    sources = noise_sources(3, 60, "freenoise", Context(length=16, overlap=12))
    for start in range(0, 44, 4):
        assert sorted(sources[start : start + 16]) == list(range(16))


@pytest.mark.parametrize("kind", ["butterworth", "gaussian", "ideal"])
@pytest.mark.parametrize(("spatial", "temporal"), [(0.25, 0.25), (0.5, 0.2), (0.0, 0.3)])
def test_filters_are_diffusers_own(kind: str, spatial: float, temporal: float) -> None:
    theirs = FreeInitMixin()._get_free_init_freq_filter((1, 1, 5, 4, 6), "cpu", kind, 4, spatial, temporal)[0, 0]
    torch.testing.assert_close(low_pass((5, 4, 6), kind, spatial, temporal), theirs, rtol=1e-5, atol=1e-7)


def test_the_box_is_the_reference_s() -> None:
    box = low_pass((16, 8, 8), "box", 0.25, 0.5)
    assert box[4:12, 3:5, 3:5].min() == 1 and box.sum() == 8 * 2 * 2


def test_low_frequencies_are_the_old_and_high_ones_the_new() -> None:
    generator = torch.Generator().manual_seed(0)
    old, new = torch.randn(2, 1, 3, 5, 4, 6, generator=generator)
    kept = low_pass((5, 4, 6))
    theirs = FreeInitMixin()._apply_freq_filter(old, new, kept)
    torch.testing.assert_close(remix(old, new, kept), theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(remix(old, new, torch.ones(5, 4, 6)), old)


def test_a_share_beyond_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"freeinit_temporal: expected a number from 0 to 1, got 1.5"):
        low_pass((4, 4, 4), "gaussian", 0.5, 1.5)
