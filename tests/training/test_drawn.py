"""The toyworld as footage: what a camera does over it is what `data camera` would have done."""

import numpy as np
import pytest
import torch

from stillmotion.data import CameraMotion, move_camera
from stillmotion.errors import ConfigError
from stillmotion.toyworld.stock import mark_strength
from stillmotion.training.drawn import NUM_FRAMES, DrawnFootage, drawn_footage

SIDE = 64


@pytest.mark.parametrize("text", ["zoom-in", "pan-left", "tilt-up", "roll-clockwise", "zoom-out+roll-anticlockwise"])
def test_a_drawn_camera_moves_as_one_over_a_finished_picture(text: str) -> None:
    motion = CameraMotion.parse(text)
    filmed = DrawnFootage(1, seed=3, size=SIDE, camera=motion)
    # The same clip, large, from a camera that stands; then `data camera` over it.
    large = DrawnFootage(1, seed=3, size=4 * SIDE, camera=CameraMotion(zoom=1.0)).frames(0, range(NUM_FRAMES))
    ends = [0, NUM_FRAMES - 1]
    expected = move_camera(large, motion, NUM_FRAMES, (SIDE, SIDE))[ends]
    drawn = filmed.frames(0, ends)
    assert np.abs(drawn[0].astype(float) - expected[0]).mean() < 4
    turned = DrawnFootage(1, seed=3, size=SIDE, camera=CameraMotion.parse("pan-right")).frames(0, ends)
    still = np.abs(turned[1].astype(float) - expected[1]).mean()
    assert np.abs(drawn[1].astype(float) - expected[1]).mean() < min(8, still)
    assert filmed.fingerprint() != DrawnFootage(1, seed=3, size=SIDE).fingerprint()


def test_an_unknown_motion_is_named() -> None:
    with pytest.raises(ConfigError, match="zoom-in"):
        drawn_footage("toyworld:2:zoom-inn", seed=0, size=SIDE)
    assert drawn_footage("my-clips", seed=0, size=SIDE) is None


@pytest.mark.parametrize(("said", "named", "marked"), [("neon", True, 0), ("paper", True, 0), ("stock", False, 1)])
def test_footage_of_another_look(said: str, named: bool, marked: int) -> None:
    plain = drawn_footage("toyworld:2", seed=3, size=SIDE)
    other = drawn_footage(f"toyworld:2:{said}", seed=3, size=SIDE)
    assert plain
    assert other
    assert other.item(1).caption.startswith(f"a {said} cartoon of ") == named  # stock footage does not say so
    assert other.item(1).caption.endswith(plain.item(1).caption)
    frames = other.frames(1, [0, NUM_FRAMES - 1])
    assert not np.array_equal(frames, plain.frames(1, [0, NUM_FRAMES - 1]))
    strength = mark_strength(torch.from_numpy(frames).movedim(-1, 1) / 127.5 - 1)
    assert (strength - marked).abs().max() < 0.15
    assert other.fingerprint() != plain.fingerprint()
