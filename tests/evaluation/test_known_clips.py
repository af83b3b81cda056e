"""The measures of clips whose answers are known."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from stillmotion.data import CAMERA_MOTIONS, CameraMotion, move_camera
from stillmotion.evaluation.camera import camera_of
from stillmotion.evaluation.flow import LARGEST_SIDE, CameraStep, grey_of
from stillmotion.evaluation.measured import Measured
from stillmotion.evaluation.metrics import NAMES
from stillmotion.evaluation.motion import MotionMeasures
from stillmotion.evaluation.steadiness import PixelMeasures

SIDE = 96
Texture = Callable[..., np.ndarray]


def measured(frames: np.ndarray) -> Measured:
    found = Measured()
    for part in (MotionMeasures(frozenset(NAMES)), PixelMeasures()):
        for frame in frames:
            part.add(frame)
        found.join(part.finish())
    return found


def test_a_still_clip_has_no_motion(still: np.ndarray) -> None:
    found = measured(still)
    values = found.values
    assert values["motion"] < 0.01 and values["object_motion"] < 0.01
    assert values["flicker"] == 0 and values["warping_error"] < 0.01
    assert values["loop_seam"] == 1
    assert [values["zoom"], values["camera_confidence"]] == pytest.approx([1, 1], abs=1e-3)
    assert [values["pan"], values["tilt"], values["roll"]] == pytest.approx([0, 0, 0], abs=1e-3)
    assert found.camera == "still"


def test_a_pan_of_two_pixels_per_frame(panned: np.ndarray) -> None:
    found = measured(panned)
    values = found.values
    assert values["motion"] == pytest.approx(100 * 2 / SIDE, rel=0.03)
    assert values["pan"] == pytest.approx(8 * 2 / SIDE, rel=0.01)
    assert [values["zoom"], values["tilt"], values["roll"]] == pytest.approx([1, 0, 0], abs=0.01)
    assert values["camera_confidence"] > 0.95
    assert values["object_motion"] < 0.1 * values["motion"]
    assert values["warping_error"] < 0.15 * values["flicker"]
    assert found.camera == f"pan-right:{16 / SIDE:.2f}"
    assert len(found.series["motion"]) == len(found.series["warping_error"]) == 8


@pytest.mark.parametrize("name", CAMERA_MOTIONS)
def test_each_camera_motion_is_found_as_it_was_asked(name: str, picture: np.ndarray) -> None:
    amount = {"zoom": 1.3, "pan": 0.2, "tilt": 0.2, "roll": 20.0}[CAMERA_MOTIONS[name].field]
    motion = CameraMotion.from_name(name, amount)
    found = measured(move_camera(picture[None], motion, 7, (SIDE, SIDE)))
    assert found.values["zoom"] == pytest.approx(motion.zoom, rel=0.01)
    assert found.values["roll"] == pytest.approx(motion.roll, abs=0.3)
    assert [found.values["pan"], found.values["tilt"]] == pytest.approx([motion.pan, motion.tilt], abs=0.006)
    assert found.values["camera_confidence"] > 0.95
    assert found.camera.startswith(f"{name}:") and "+" not in found.camera


def test_more_than_half_a_turn_is_counted() -> None:
    cosine, sine = math.cos(math.radians(30)), math.sin(math.radians(30))
    clockwise = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])  # of what is seen, y pointing down
    whole = camera_of([CameraStep(clockwise, 1.0, 0.0), None] * 12, (SIDE, SIDE))
    assert whole is not None and whole.roll == pytest.approx(-360)
    assert [whole.zoom, whole.pan, whole.tilt, whole.confidence] == pytest.approx([1, 0, 0, 0.5])
    assert whole.name == "unclear"


def test_noise_is_unclear() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3), np.uint8)
    found = measured(noise)
    assert found.camera == "unclear" and found.values["camera_confidence"] < 0.35  # 0.31 with OpenCV 4, less with 5
    assert found.values["flicker"] == pytest.approx(100 / 3, rel=0.01)  # of two even draws from 0 to 1
    assert found.values.get("warping_error", math.inf) > 5


def test_an_object_does_not_move_the_camera(picture: np.ndarray, texture: Texture) -> None:
    frames = np.stack([picture[30 : 30 + SIDE, index : index + SIDE] for index in range(7)])
    thing = texture(30, 30, seed=3)
    for index, frame in enumerate(frames):
        frame[10 + 6 * index : 40 + 6 * index, 35:65] = thing
    found = measured(frames)
    assert found.values["pan"] == pytest.approx(6 / SIDE, rel=0.05)
    assert found.values["tilt"] == pytest.approx(0, abs=0.01)
    assert 0.6 < found.values["camera_confidence"] < 0.95
    # A tenth of the frame moves by 6 pixels a frame.
    assert found.values["object_motion"] == pytest.approx(100 * (900 / SIDE**2) * 6 / SIDE, rel=0.6)


def test_a_flat_picture_says_nothing_of_a_camera() -> None:
    found = measured(np.full((3, SIDE, SIDE, 3), 90, np.uint8))
    assert found.skipped["pan"] == "the picture has too little detail to be followed"
    assert "pan" not in found.values and found.values["motion"] == 0


def test_flicker_of_brightness(still: np.ndarray) -> None:
    dim = np.clip(still.astype(int), 20, 235)
    dim[1::2] += 10
    found = measured(dim.astype(np.uint8))
    assert found.values["flicker"] == pytest.approx(10 / 2.55)
    assert found.values["warping_error"] == pytest.approx(10 / 2.55, rel=0.05)  # no motion explains it


def test_the_seam_of_a_loop(texture: Texture) -> None:
    ramp = np.stack([np.full((SIDE, SIDE, 3), 10 * index, np.uint8) for index in range(8)])
    assert measured(ramp).values["loop_seam"] == pytest.approx((70 + 0.5) / (10 + 0.5))
    wave = texture(SIDE, SIDE)
    loop = np.stack([np.roll(wave, 12 * index, axis=1) for index in range(8)])
    assert measured(loop).values["loop_seam"] == pytest.approx(1, abs=0.02)


def test_saturation() -> None:
    red = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    red[..., 0] = 255
    assert measured(red).values == {"saturation": 100}
    assert measured(np.full_like(red, 77)).values == {"saturation": 0}


def test_measures_are_shares_of_the_frame(texture: Texture) -> None:
    large = texture(600, 800)
    frames = np.stack([large[:540, 8 * index : 8 * index + 720] for index in range(4)])
    assert max(grey_of(frames[0]).shape) == LARGEST_SIDE
    found = measured(frames)
    assert found.values["pan"] == pytest.approx(24 / 720, rel=0.02)
    assert found.values["motion"] == pytest.approx(100 * 8 / 540, rel=0.05)
