"""The drawn depth: what stands where, told in nearness alone."""

import pytest
import torch

from stillmotion.toyworld import draw_clips, parse
from stillmotion.toyworld.choreography import Poses
from stillmotion.toyworld.drawing import Look, draw_depth


def depth_of(caption: str) -> tuple[torch.Tensor, Poses, Look]:
    drawn = draw_clips([parse(caption)], seed=4, indices=[0], size=64)
    return (draw_depth(drawn.look, drawn.poses, size=64) + 1) / 2, drawn.poses, drawn.look


def test_the_sky_is_far_and_the_ground_nears() -> None:
    depth, poses, _ = depth_of("a red ball on green grass")
    assert depth.shape == (16, 3, 64, 64)
    assert torch.equal(depth[:, 0], depth[:, 1])
    assert torch.equal(depth[:, 0], depth[:, 2])
    assert float(depth[:, :, 0].max()) == 0.0
    assert depth.min() >= 0
    assert depth.max() <= 1
    beside = 2 if float(poses.x[0, 0]) > 0.5 else 61  # a column that the object does not stand in
    ground = depth[0, 0, 42:, beside]
    assert bool((ground.diff() > 0).all())
    assert float(ground[-1]) > 0.97


@pytest.mark.parametrize("caption", ["a box rolling left at night", "a ball bouncing on white snow", "a ball growing"])
def test_the_object_is_where_it_is_drawn_whatever_it_looks_like(caption: str) -> None:
    depth, poses, look = depth_of(caption)
    empty = Poses(**{**vars(poses), "radius": poses.radius * 1e-3, "y": poses.y * 0 + 0.9})
    bare = (draw_depth(look, empty, size=64) + 1) / 2
    axis = (torch.arange(64) + 0.5) / 64
    # Above its foot the object is nearer than what is behind it.
    object_ = ((depth - bare)[:, 0] > 0.02).float()
    mass = object_.sum((1, 2))
    x = (object_.sum(1) * axis).sum(1) / mass
    torch.testing.assert_close(x, poses.x[0], atol=0.03, rtol=0)
    assert bool((mass > 50).all())


def test_colours_and_styles_do_not_show() -> None:
    one, *_ = depth_of("a red star spinning on yellow sand")
    other, *_ = depth_of("a neon cartoon of a blue star spinning at night")
    torch.testing.assert_close(one, other)
