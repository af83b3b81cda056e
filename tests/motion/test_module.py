"""The temporal transformer: its sizes, its silence at birth, its positions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillmotion.errors import MismatchError
from stillmotion.motion import VARIANTS, MotionGeometry, MotionModule
from stillmotion.motion.module import TemporalTransformer, sinusoidal_positions

SD15 = (320, 640, 1280, 1280)


@pytest.mark.parametrize(("variant", "count"), [("v1", 417_137_600), ("v2", 453_209_280), ("v3", 417_137_600)])
def test_parameter_counts_are_the_released_ones(variant: str, count: int) -> None:
    with torch.device("meta"):
        module = MotionModule.from_variant(variant, block_out_channels=SD15)
    assert sum(parameter.numel() for parameter in module.parameters()) == count


def test_at_birth_it_changes_nothing() -> None:
    site = TemporalTransformer(32, MotionGeometry(block_out_channels=(32,)), "per_frame")
    features = torch.randn(6, 32, 4, 4)
    assert torch.equal(site(features, 3), features)


def test_frames_see_each_other_and_clips_do_not() -> None:
    site = TemporalTransformer(32, MotionGeometry(block_out_channels=(32,)), "per_frame")
    torch.nn.init.normal_(site.proj_out.weight, std=0.1)
    features = torch.randn(6, 32, 4, 4)
    changed = features.clone()
    changed[0, :, 0, 0] += torch.randn(32)
    difference = (site(features, 3) - site(changed, 3)).abs().amax((1, 2, 3))
    assert (difference[:3] > 1e-6).all()
    assert (difference[3:] == 0).all()


def test_geometry_is_read_from_shapes() -> None:
    module = MotionModule.from_variant("v2", block_out_channels=(32, 64), layers_per_block=3, max_frames=20)
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    assert MotionGeometry.from_shapes(shapes) == module.geometry


@settings(max_examples=20, deadline=None)
@given(length=st.integers(1, 64), half=st.integers(1, 64))
def test_positions_do_not_depend_on_the_table_length(length: int, half: int) -> None:
    table = sinusoidal_positions(64, 2 * half)
    assert torch.equal(sinusoidal_positions(length, 2 * half), table[:, :length])
    assert torch.allclose(table[..., 0::2] ** 2 + table[..., 1::2] ** 2, torch.ones(1, 64, half), atol=1e-5)


def test_unknown_variant_names_the_known_ones() -> None:
    with pytest.raises(MismatchError, match="'v9' is unknown; expected one of v1, v2, v3"):
        MotionModule.from_variant("v9", block_out_channels=SD15)


def test_variants_are_told_apart_by_what_their_format_says() -> None:
    assert VARIANTS["v1"].spatial_norm == "across_frames"
    assert VARIANTS["v2"].has_mid_block
    assert VARIANTS["v3"].noise_schedule.beta_schedule == "linear"
    assert VARIANTS["sdxl_beta"].noise_schedule.beta_end == 0.020
