"""The toyworld as footage: what a camera does over it is what `data camera` would have done."""

import numpy as np
import pytest

from stillmotion.data import CameraMotion, move_camera
from stillmotion.errors import ConfigError
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
