"""The training loop: it learns, it goes on exactly where it stood, and it stops before harm."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from stillmotion.seeding import generator
from stillmotion.training.loop import LoopConfig, NonFiniteLoss, Part, StepDone, rate_factor, run
from stillmotion.training.optim import Muon, orthogonalize
from stillmotion.training.state import checkpoints


class Fit:
    """Learning a fixed linear map from noise that is a function of the step."""

    def __init__(self, poison: int = -1) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 8))
        self.poison = poison

    def losses(self, step: int) -> Iterator[Part]:
        """Yield the error on the step's own inputs."""
        inputs = torch.randn(32, 8, generator=generator(1, "fit", step))
        wrong = (self.module(inputs) - inputs.flip(1)).square().mean()
        yield Part(wrong * (float("nan") if step == self.poison else 1.0), keys=("clip 7",))


class HalfFit(Fit):
    """The same in half precision, of so large an error that its gradient, scaled up, is too large for that."""

    def losses(self, step: int) -> Iterator[Part]:
        """Yield the error, a hundredfold."""
        with torch.autocast("cpu", torch.float16):
            for part in super().losses(step):
                yield replace(part, loss=100 * part.loss)


class Cusp(Fit):
    """A finite loss whose gradient is not a number."""

    def losses(self, step: int) -> Iterator[Part]:
        """Yield the error and a root at zero."""
        for part in super().losses(step):
            yield replace(part, loss=part.loss + (0 * self.module[0].weight).sqrt().sum())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_it_learns(tmp_path: Path, optimizer: str) -> None:
    config = LoopConfig(num_steps=150, optimizer=optimizer, learning_rate=1e-2, muon_rate=0.02)
    losses = [done.loss for done in run(Fit(), config, tmp_path)]
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_stopped_run_ends_bit_for_bit_as_the_unbroken_one(tmp_path: Path, optimizer: str) -> None:
    config = LoopConfig(num_steps=30, optimizer=optimizer, ema_decay=0.9, checkpoint_every=10)
    whole = Fit()
    list(run(whole, config, tmp_path / "whole"))
    for done in run(Fit(), config, tmp_path / "broken"):
        if done.step == 17:
            break
    again = Fit()
    steps = [done.step for done in run(again, config, tmp_path / "broken")]
    assert steps[0] == 11
    for name, value in whole.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[name], value), name


def test_the_module_stands_at_its_checkpoint_before_a_step_is_asked_for(tmp_path: Path) -> None:
    trained, again = Fit(), Fit()
    list(run(trained, LoopConfig(num_steps=2), tmp_path))
    run(again, LoopConfig(num_steps=4), tmp_path)
    for name, value in trained.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[name], value), name


def test_a_step_is_noted_before_it_is_saved(tmp_path: Path) -> None:
    noted = []

    def note(done: StepDone) -> None:
        noted.append((done.step, [step for step, _ in checkpoints(tmp_path)]))

    list(run(Fit(), LoopConfig(num_steps=2, checkpoint_every=1), tmp_path, note=note))
    assert noted == [(1, []), (2, [1])]


def test_the_newest_two_checkpoints_stay_and_partial_ones_are_not_read(tmp_path: Path) -> None:
    config = LoopConfig(num_steps=40, checkpoint_every=10)
    list(run(Fit(), config, tmp_path))
    (tmp_path / ".step-50.partial").mkdir()
    assert [step for step, _ in checkpoints(tmp_path)] == [30, 40]


def test_a_loss_that_is_no_number_stops_before_the_weights_move(tmp_path: Path) -> None:
    objective = Fit(poison=3)
    steps = run(objective, LoopConfig(num_steps=10), tmp_path)
    for _ in range(3):
        next(steps)
    before = {name: value.clone() for name, value in objective.module.state_dict().items()}
    with pytest.raises(NonFiniteLoss, match=r"Step 4.*clip 7"):
        next(steps)
    assert all(torch.equal(before[name], value) for name, value in objective.module.state_dict().items())


def test_a_scaled_loss_trains_alike_and_goes_on_alike(tmp_path: Path) -> None:
    config = LoopConfig(num_steps=12, max_grad_norm=1e9, checkpoint_every=5)
    plain = [done.loss for done in run(Fit(), config, tmp_path / "plain")]
    scaled = replace(config, scale_loss=True)
    whole, again = Fit(), Fit()
    assert [done.loss for done in run(whole, scaled, tmp_path / "scaled")] == pytest.approx(plain, rel=1e-6)
    for done in run(Fit(), scaled, tmp_path / "broken"):
        if done.step == 7:
            break
    list(run(again, scaled, tmp_path / "broken"))
    for name, value in whole.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[name], value), name


def test_steps_whose_gradient_overflows_are_left_out_until_the_scale_fits(tmp_path: Path) -> None:
    objective = HalfFit()
    before = objective.module[0].weight.clone()
    moved = []
    for done in run(objective, LoopConfig(num_steps=12, scale_loss=True), tmp_path):
        moved.append(not torch.equal(objective.module[0].weight, before))
        assert moved[-1] == math.isfinite(done.figures["gradient_norm"])
    assert not moved[0]
    assert moved[-1]
    assert done.figures["loss_scale"] < 2**16


def test_a_gradient_that_no_scale_helps_stops_the_run(tmp_path: Path) -> None:
    steps = run(Cusp(), LoopConfig(num_steps=100, scale_loss=True), tmp_path)
    with pytest.raises(NonFiniteLoss, match="gradient norm nan"):
        list(steps)


def test_rates_rise_stay_and_fall_to_nothing() -> None:
    config = LoopConfig(num_steps=100, warmup_steps=10, decay_from=0.5)
    factors = [rate_factor(step, config) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[30] == 1.0
    assert factors[-1] == pytest.approx(0.02)


def test_orthogonalised_matrices_turn_and_do_not_stretch() -> None:
    matrices = torch.randn(3, 16, 40, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrices))
    assert values.min() > 0.6
    assert values.max() < 1.3
    torch.testing.assert_close(orthogonalize(matrices.mT.contiguous()).mT, orthogonalize(matrices))


def test_muon_moves_convolutions_as_matrices() -> None:
    weight = nn.Parameter(torch.zeros(4, 3, 3, 3))
    weight.grad = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    Muon([weight], lr=0.1).step()
    values = torch.linalg.svdvals(weight.detach().flatten(1))
    assert values.min() > 0.05
    assert values.max() < 0.14


def test_what_muon_decays_wears_off_at_its_rate() -> None:
    weight = nn.Parameter(torch.ones(4, 6))
    weight.grad = torch.zeros(4, 6)
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), torch.full((4, 6), 0.95))


def test_a_state_from_before_muon_decayed_is_gone_on_with() -> None:
    weight = nn.Parameter(torch.ones(4, 6))
    weight.grad = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    optimizer = Muon([weight], lr=0.1)
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        del group["weight_decay"]
    optimizer.load_state_dict(saved)
    optimizer.step()
    assert not torch.equal(weight.detach(), torch.ones(4, 6))
