"""C8 holds where the other schedule flickers and pales, and not where both give the same clip."""

from typing import Any

import pytest
from tests.claims.drawn import noisy, pale, truth

from stillmotion.animate import AnimateConfig, Session, animate
from stillmotion.claims import schedules
from stillmotion.claims.filming import Frames, Studio
from stillmotion.claims.finding import Budget, Finding


@pytest.mark.parametrize("worse", [True, False])
def test_flicker_and_pale_colours_are_seen(worse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def film(_: Studio, prompt: str, seed: int, **fields: Any) -> Frames:
        frames = truth(prompt, seed)
        spoilt = worse and fields["noise_schedule"] == "scaled_linear"
        return noisy(pale(frames), 30) if spoilt else frames

    monkeypatch.setattr(Studio, "film", film)
    *_, finding = schedules.measure(Budget(share=0.15))
    assert isinstance(finding, Finding)
    assert [figure.holds for figure in finding.figures if figure.limits] == [worse, worse]


def test_the_schedule_is_the_motion_modules_own_unless_another_is_said() -> None:
    session = Session()

    def made(**fields: Any) -> Frames:
        config = AnimateConfig(prompt="a red ball", seed=1, num_frames=2, num_inference_steps=2, **fields)
        return animate(config, session=session).frames

    own = made()
    assert (made(noise_schedule="linear") == own).all()
    assert (made(noise_schedule="scaled_linear") != own).any()
