"""The drawn world: captions and scenes mean each other, truth is exact, pictures are functions of (seed, index)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillmotion.data import CameraMotion, camera_path, move_camera
from stillmotion.errors import ConfigError
from stillmotion.seeding import generator
from stillmotion.toyworld.choreography import CLIP_FRAMES, choreograph, motion_indices
from stillmotion.toyworld.drawing import Camera, draw_depth
from stillmotion.toyworld.judge import track
from stillmotion.toyworld.language import COLOURS, MOTIONS, PLACES, SHAPES, STYLES, Scene, draw_scene, parse
from stillmotion.toyworld.models import make_tokenizer
from stillmotion.toyworld.stock import OPACITY, as_stock_video, mark_strength
from stillmotion.toyworld.world import draw_clips, draw_pictures, truth

words = {"colour": COLOURS, "motion": MOTIONS, "place": PLACES, "style": STYLES}
scenes = st.builds(
    Scene, shape=st.sampled_from(SHAPES), **{name: st.sampled_from([None, *said]) for name, said in words.items()}
)


@given(scene=scenes)
def test_captions_mean_their_scenes(scene: Scene) -> None:
    assert parse(scene.caption) == scene
    assert parse(f"  {scene.caption.upper()} ") == scene


@pytest.mark.parametrize("caption", ["a red dog", "a ball flying", "red", ""])
def test_what_the_world_does_not_know_is_named(caption: str) -> None:
    with pytest.raises(ConfigError, match="does not understand"):
        parse(caption)


@given(scene=scenes)
def test_every_word_is_one_token(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> None:
    tokenizer = _tokenizer(tmp_path_factory)
    assert len(tokenizer(scene.caption).input_ids) == len(scene.caption.split()) + 2


def _tokenizer(factory: pytest.TempPathFactory, made: list = []):  # noqa: B006  # made once
    if not made:
        made.append(make_tokenizer(factory.mktemp("tokenizer") / "t"))
    return made[0]


@pytest.mark.parametrize("motion", [*MOTIONS, None])
def test_the_truth_moves_as_it_says(motion: str | None) -> None:
    """The rules that judge clips read every drawn motion right, whatever its phase and speed."""
    count = 40
    chance = torch.rand(count, 8, generator=generator(2, "test"))
    kinds = motion_indices([Scene(shape="ball", motion=motion)] * count)
    poses = choreograph(kinds, chance, torch.arange(CLIP_FRAMES, dtype=torch.float32))
    look = draw_clips([Scene(shape="ball")] * count, seed=1, indices=range(count), size=8).look
    measures = truth(poses, look).measures.unflatten(0, (count, CLIP_FRAMES))
    right = [track(clip).motion == kind for clip, kind in zip(measures, kinds.tolist(), strict=True)]
    assert sum(right) == count


def test_turns_are_told_from_faces_that_look_anywhere() -> None:
    def turns(degrees: torch.Tensor) -> float:
        facing = torch.deg2rad(degrees)
        zero = torch.zeros(len(facing))
        return track(torch.stack([zero, zero, zero, zero, facing.cos(), facing.sin()], 1)).turns

    chance = generator(4, "test")
    whole = torch.arange(CLIP_FRAMES) * 360 / (CLIP_FRAMES - 1)
    noisy = whole + 20 * torch.randn(CLIP_FRAMES, generator=chance)
    noisy[[4, 11]] *= -1  # the frames that show one eye's edge
    assert turns(whole) == pytest.approx(1, abs=0.02)
    assert turns(-whole / 2) == pytest.approx(-0.5, abs=0.02)
    assert turns(noisy) == pytest.approx(1, abs=0.2)
    assert turns(noisy[:8]) == pytest.approx(7 / 15, abs=0.2)
    assert abs(turns(20 * torch.randn(CLIP_FRAMES, generator=chance))) < 0.1

    anywhere = [turns(whole[torch.randperm(CLIP_FRAMES, generator=chance)]) for _ in range(200)]
    assert sum(abs(found) > 0.1 for found in anywhere) <= 4


def test_objects_stay_in_the_picture() -> None:
    drawn = [draw_scene(generator(3, "scene", index)) for index in range(200)]
    chance = torch.rand(200, 8, generator=generator(3, "test"))
    poses = choreograph(motion_indices(drawn), chance, torch.arange(CLIP_FRAMES, dtype=torch.float32))
    assert poses.x.min() > 0.1
    assert poses.x.max() < 0.9
    assert (poses.y - poses.radius).min() > 0.0
    assert (poses.y + poses.radius * 0.8).max() < 1.0


@pytest.mark.parametrize("shape", SHAPES)
def test_what_spins_turns_its_back_and_keeps_its_outline(shape: str) -> None:
    scene = Scene(shape=shape, colour="red", motion="spinning", place="at night")
    drawn = draw_clips([scene], seed=1, indices=[0], size=64)
    poses, half = drawn.poses, CLIP_FRAMES // 2
    assert poses.facing[0, 0].cos() > 0.9
    assert poses.facing[0, half].cos() < -0.9

    changed = (drawn.pixels[0, :, half] - drawn.pixels[0, :, 0]).abs().amax(0) > 0.3
    y, x = (torch.nonzero(changed) + 0.5).div(64).unbind(1)
    assert changed.float().mean() > 0.02  # the face is gone, the tail is there
    far = torch.hypot(x - poses.x[0, 0], y - poses.y[0, 0]) / poses.radius[0, 0]
    assert far.quantile(0.95) < 0.8  # all but the outline, which breathes

    depth = draw_depth(drawn.look, poses, size=64)
    assert (depth - depth[:1]).abs().mean() < 0.02


def test_pictures_are_functions_of_seed_and_index() -> None:
    together = draw_pictures(range(4), seed=5, size=32).pixels
    assert torch.equal(draw_pictures([2], seed=5, size=32).pixels[0], together[2])
    assert not torch.equal(draw_pictures([2], seed=6, size=32).pixels[0], together[2])
    assert together.min() >= -1
    assert together.max() <= 1


def test_the_camera_moves_the_whole_picture() -> None:
    scene, frames = [Scene(shape="star", colour="red", place="at night")], torch.zeros(1)
    still = draw_clips(scene, seed=1, indices=[0], frames=frames, size=64).pixels[0, :, 0]
    nothing = torch.zeros(1)
    shift = Camera(scale=torch.ones(1), x=torch.full((1,), 8 / 64), y=nothing, roll=nothing)
    panned = draw_clips(scene, seed=1, indices=[0], frames=frames, size=64, camera=shift).pixels[0, :, 0]
    torch.testing.assert_close(panned[..., :-8], still[..., 8:], atol=2e-3, rtol=0)


def test_the_camera_rolls_as_that_of_data_camera() -> None:
    scene, nothing = [Scene(shape="star", colour="red", place="at night")], torch.zeros(1)

    def drawn(size: int, nearer: float = 1.0, degrees: float = 0.0) -> np.ndarray:
        roll = torch.full((1,), math.radians(degrees))
        camera = Camera(scale=torch.full((1,), nearer), x=nothing, y=nothing, roll=roll)
        pixels = draw_clips(scene, seed=1, indices=[0], frames=nothing, size=size, camera=camera).pixels[0, :, 0]
        return ((pixels + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()

    motion = CameraMotion(roll=20)
    filmed = move_camera(drawn(256)[None], motion, 2, (64, 64))[-1].astype(float)
    (a, _, _), (b, _, _) = camera_path(motion, 2, (256, 256), (64, 64))[-1]
    nearer = math.hypot(a, b) * 256 / 64
    assert abs(filmed - drawn(64, nearer, 20)).mean() < 3
    assert abs(filmed - drawn(64, nearer, -20)).mean() > 6


@pytest.mark.parametrize("opacity", [0.0, 0.3, OPACITY])
def test_the_mark_is_measured_on_any_ground(opacity: float) -> None:
    pictures = draw_pictures(range(24), seed=3, size=64).pixels[:, :, 0]
    strength = mark_strength(as_stock_video(pictures, opacity))
    assert (strength - opacity / OPACITY).abs().max() < 0.12
    assert mark_strength(as_stock_video(torch.zeros(1, 3, 128, 128))).item() == pytest.approx(1, abs=0.01)
