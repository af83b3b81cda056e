"""One long step of DDIM that lands where several short, guided ones do."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from stillmotion.sampling import Diffusion
from stillmotion.training.distillation import FewStepsObjective
from stillmotion.training.objectives import LatentBatch

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear"}


class Gain(nn.Module):
    """A denoiser that multiplies what it sees, and hears its text as loudly as it learnt to; it teaches with 0.5 and 1."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.heard = (nn.Parameter(torch.tensor(value)) for value in (0.3, 1.0))
        self.learns = True

    def forward(self, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:  # noqa: ARG002  # as a denoiser is called
        told = text.mean((1, 2)).view(-1, 1, 1, 1, 1)
        return self.gain * noisy + self.heard * told if self.learns else 0.5 * noisy + told

    @contextmanager
    def teaching(self) -> Iterator[None]:
        self.learns = False
        yield
        self.learns = True


def objective(prediction_type: str) -> tuple[FewStepsObjective, Gain]:
    model = Gain()
    latents = torch.randn((1, 4, 3, 2, 2), generator=torch.Generator().manual_seed(1))
    made = FewStepsObjective(
        module=model,
        denoiser=model,
        teaching=model.teaching,
        diffusion=Diffusion.from_config({**SCHEDULE, "prediction_type": prediction_type}),
        batch=lambda _: LatentBatch(latents, torch.full((1, 2, 3), 0.1)),
        empty=torch.zeros((1, 2, 3)),
        seed=5,
    )
    return made, model


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_aimed_prediction_lands_where_the_goal_is(prediction_type: str) -> None:
    made, _ = objective(prediction_type)
    scheduler = DDIMScheduler(
        **SCHEDULE,
        prediction_type=prediction_type,
        timestep_spacing="trailing",
        set_alpha_to_one=True,
        clip_sample=False,
    )
    scheduler.set_timesteps(made.num_steps)
    chance = torch.Generator().manual_seed(2)
    for number, timestep in enumerate(scheduler.timesteps.tolist()):
        times = made.timesteps(number)
        assert times[0] == timestep
        assert len(times) == made.short_steps + 1
        noisy, goal = torch.randn((2, 1, 4, 3, 2, 2), generator=chance)
        aimed = made.aimed(noisy, goal, times[0], times[-1])
        landed = scheduler.step(aimed, timestep, noisy).prev_sample
        assert torch.allclose(landed, goal, atol=1e-4), number


def test_long_steps_follow_one_another_down_to_no_noise() -> None:
    made, _ = objective("v_prediction")
    every = [made.timesteps(number) for number in range(made.num_steps)]
    assert [a[-1] for a in every[:-1]] == [b[0] for b in every[1:]]
    assert every[-1][-1] == -1
    assert every[0] == [999, 916, 832, 749]


def test_it_learns_the_guided_steps() -> None:
    made, model = objective("v_prediction")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    errors = []
    for step in range(120):
        (part,) = made.losses(step)
        optimizer.zero_grad()
        part.loss.backward()
        optimizer.step()
        errors.append(part.loss.item())
    assert sum(errors[-4:]) < 0.25 * sum(errors[:4]), errors
    assert model.heard > 4  # of 7.5, the guidance, in steps that bend its way


def test_a_step_is_a_function_of_its_number() -> None:
    made, _ = objective("v_prediction")
    assert next(made.losses(3)).loss.item() == next(made.losses(3)).loss.item()
    assert next(made.losses(3)).loss.item() != next(made.losses(7)).loss.item()
