"""A prompt that travels on the toyworld: from a red ball to a blue one, and never back."""

import numpy as np
import pytest

import stillmotion as sm
from stillmotion.animate import AnimateConfig

NUM_FRAMES = 32
LARGEST_RETURN = 0.05
"""How far back to red a frame may be from the bluest before it, as a share of the whole way: antialiasing, the ball's turn."""


def redness(frame: np.ndarray) -> float:
    """Return the mean of red minus blue, -1 to 1, over the pixels in strong colours: the ball, and nothing of the snow."""
    colours = frame.astype(float) / 255
    strong = colours.max(2) - colours.min(2) > 0.3
    assert strong.sum() > 100, "there is no ball to be seen"
    return float((colours[..., 0] - colours[..., 2])[strong].mean())


@pytest.mark.slow
def test_red_becomes_blue_and_never_red_again() -> None:
    clip = sm.animate(
        AnimateConfig(
            prompt="a red ball bouncing on white snow",
            prompt_map={NUM_FRAMES - 1: "a blue ball bouncing on white snow"},
            num_frames=NUM_FRAMES,
            num_inference_steps=20,
            seed=0,
            device="cpu",
        )
    )
    course = np.array([redness(frame) for frame in clip.frames])
    assert course[0] > 0.2 and course[-1] < -0.2, course.round(2)
    back = (course - np.minimum.accumulate(course)).max() / (course[0] - course[-1])
    assert back <= LARGEST_RETURN, (round(float(back), 3), course.round(2))
