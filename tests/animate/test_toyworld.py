"""The defaults: the embedded toyworld, offline, with nothing but a prompt."""

import numpy as np

import stillmotion as sm
from stillmotion.animate import AnimateConfig, replay


def test_a_prompt_is_enough(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    clip = sm.animate(AnimateConfig(prompt="a red ball rolling right", num_frames=4, num_inference_steps=1, seed=7))
    assert clip.frames.shape == (4, 128, 128, 3)
    settled = clip.run["config"]
    assert (settled["dtype"], settled["guidance_scale"], settled["model"]) == ("float32", 5.0, "toyworld")
    # Nothing in the record depends on where the package is installed.
    assert all(file["path"].startswith("toyworld/") for file in clip.run["models"])
    again = replay(clip.save(tmp_path / "ball.webp"))
    assert np.array_equal(again.frames, clip.frames)
