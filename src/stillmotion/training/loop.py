"""The one training loop: an objective in, an iterator of what each step did out.

Order, noise and timesteps are functions of (seed, purpose, step): an objective draws its batch from the step's number
alone, so a resumed run repeats the uninterrupted one and no generator is ever saved.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from stillmotion.errors import StillmotionError
from stillmotion.products import faster_gradients, propagate
from stillmotion.training.optim import Muon, split_parameters
from stillmotion.training.sharding import whole
from stillmotion.training.state import TrainState, load_latest, save
from stillmotion.training.world import World

ALONE = World()


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long and how fast to train."""

    num_steps: int
    """Optimizer steps in all."""
    learning_rate: float = 1e-3
    """AdamW's peak rate, for norms, biases, embeddings and, with `optimizer: adamw`, for everything."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` moves matrices and convolutions by Muon, the rest by AdamW."""
    muon_rate: float = 0.012
    """Muon's peak rate."""
    muon_decay: float = 0.0
    """Muon's decoupled weight decay."""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's decay rates of the first and second moment."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    warmup_steps: int = 20
    """Steps over which the rates rise from zero."""
    decay_from: float = 0.5
    """Share of the steps after which the rates fall in a line to zero."""
    max_grad_norm: float = 1.0
    """The gradient is scaled down to this norm (AdamW's parameters; Muon's step has a fixed size)."""
    ema_decay: float = 0.0
    """Decay per step of the exponential moving average of the weights; 0 keeps none."""
    scale_loss: bool = False
    """Whether the loss is scaled up, so that small gradients survive half precision, and steps that overflow are left out
    (Micikevicius et al. 2018, §3.2)."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""


@runtime_checkable
class Objective(Protocol):
    """What is trained, and on what."""

    @property
    def module(self) -> nn.Module:
        """Its parameters that require gradients are trained, and saved."""
        ...

    def losses(self, step: int) -> Iterator["Part"]:
        """Yield the parts of the loss of the step's own batch, each of which is propagated and let go of in turn."""
        ...


@dataclass(frozen=True)
class Part:
    """A part of a step's batch; the step's loss, and its gradient, is the sum over its parts."""

    loss: Tensor
    """This part's share of the step's loss."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What else to report; of equal names the last part's is kept."""
    keys: tuple[str, ...] = ()
    """Which clips it was computed on, to be named where it goes wrong."""


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """What one optimizer step did."""

    step: int  # from 1
    num_steps: int
    loss: float
    seconds: float  # its checkpoint left out
    figures: Mapping[str, float]


class NonFiniteLoss(StillmotionError):
    """The loss or its gradient is not a number; nothing was updated."""


def run(
    objective: Objective,
    config: LoopConfig,
    folder: Path,
    *,
    stop: Callable[[], bool] = lambda: False,
    note: Callable[[StepDone], None] = lambda _: None,
    world: World = ALONE,
) -> Iterator[StepDone]:
    """Load the newest complete checkpoint in `folder`, if any; return the steps from there to `config.num_steps`.

    A step is done when it is asked for. Once they are exhausted, the module carries the averaged weights where an average is
    kept. `stop` is asked after each step: when it says True, the state is saved and the run ends there. `note` is told of a
    step before it is saved: what it writes is there whenever the run is killed. Processes of one `world` share a folder.

    A step raises `NonFiniteLoss`, with the weights as they were, where the loss or its gradient is not a number.
    """
    optimizers = _optimizers(objective.module, config)
    device = next(objective.module.parameters()).device.type
    scaler = torch.amp.GradScaler(device, enabled=config.scale_loss)
    state = TrainState(module=objective.module, optimizers=optimizers, ema=None, scaler=scaler)
    if config.ema_decay:
        state.ema = {name: p.detach().clone() for name, p in state.trainable().items()}
    # Before a checkpoint is read: it holds the rates of its own step.
    peaks = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    state.step = load_latest(state, folder)

    def steps() -> Iterator[StepDone]:
        while state.step < config.num_steps:
            done = _stepped(objective, config, state, peaks, world)
            note(done)
            stopping = world.any(stop())
            if stopping or state.step % config.checkpoint_every == 0 or state.step == config.num_steps:
                save(state, folder, writes=world.rank == 0)
                world.wait()
            yield done
            if stopping:
                return
        if state.ema is not None:
            for name, parameter in state.trainable().items():
                parameter.data.copy_(state.ema[name])

    return steps()


def _stepped(objective: Objective, config: LoopConfig, state: TrainState, peaks: list[float], world: World) -> StepDone:
    """Do one optimizer step."""
    optimizers, scaler = state.optimizers, state.scaler
    started = time.perf_counter()
    _set_rates(optimizers, peaks, rate_factor(state.step, config))
    part, figures, keys = _propagate(objective, state.step, scaler)
    moving = list(state.trainable().values())
    value = world.add_up(moving, part)
    for optimizer in optimizers:
        scaler.unscale_(optimizer)
    norm = whole(nn.utils.clip_grad_norm_(moving, config.max_grad_norm))
    overflowed = scaler.is_enabled() and scaler.get_scale() > 1 and not torch.isfinite(norm)
    if not math.isfinite(value) or not (torch.isfinite(norm) or overflowed):
        clips = f" Its clips: {', '.join(keys)}." if keys else ""
        raise NonFiniteLoss(
            f"Step {state.step + 1}: loss {value}, gradient norm {float(norm)}. The weights are as they were; lower "
            f"the learning rate, or look at the data of this step.{clips}"
        )
    for optimizer in optimizers:
        scaler.step(optimizer)  # which leaves an overflowed step out
        optimizer.zero_grad(set_to_none=True)
    scaler.update()
    state.step += 1
    _average(state, config)
    seconds = time.perf_counter() - started
    figures = {**figures, "gradient_norm": float(norm)}
    if scaler.is_enabled():
        figures["loss_scale"] = scaler.get_scale()
    return StepDone(step=state.step, num_steps=config.num_steps, loss=value, seconds=seconds, figures=figures)


def _propagate(
    objective: Objective, step: int, scaler: torch.amp.GradScaler
) -> tuple[float, dict[str, float], tuple[str, ...]]:
    """Leave the gradient of the step's loss in the parameters; return the loss, the figures and the clips' keys."""
    total: Tensor | float = 0.0
    figures: dict[str, float] = {}
    keys: tuple[str, ...] = ()
    with faster_gradients(next(objective.module.parameters()).device):
        for part in objective.losses(step):
            propagate(scaler.scale(part.loss))
            total = total + part.loss.detach()
            figures |= part.figures
            keys += part.keys
    return float(total), figures, keys


def rate_factor(step: int, config: LoopConfig) -> float:
    """Return what the peak rates are multiplied by at `step` (from 0): warm-up, plateau, a line to zero."""
    rise = (step + 1) / max(config.warmup_steps, 1)
    fall = (1 - step / config.num_steps) / max(1 - config.decay_from, 1e-9)
    return max(min(rise, fall, 1.0), 0.0)


def _optimizers(module: nn.Module, config: LoopConfig) -> list[torch.optim.Optimizer]:
    matrices, others = split_parameters(module)
    if config.optimizer == "adamw":
        matrices, others = [], matrices + others
    made: list[torch.optim.Optimizer] = []
    if matrices:
        made.append(Muon(matrices, lr=config.muon_rate, weight_decay=config.muon_decay))
    if others:
        rate, decay = config.learning_rate, config.weight_decay
        made.append(torch.optim.AdamW(others, lr=rate, betas=config.betas, weight_decay=decay))
    if not made:
        raise StillmotionError("Nothing to train: no parameter of the module requires a gradient.")
    return made


def _set_rates(optimizers: list[torch.optim.Optimizer], peaks: list[float], factor: float) -> None:
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    for group, peak in zip(groups, peaks, strict=True):
        group["lr"] = peak * factor


@torch.no_grad()
def _average(state: TrainState, config: LoopConfig) -> None:
    if state.ema is None:
        return
    decay = min(config.ema_decay, (1 + state.step) / (10 + state.step))  # young averages forget faster
    for name, parameter in state.trainable().items():
        state.ema[name].lerp_(parameter, 1 - decay)
