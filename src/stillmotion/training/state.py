"""What a run must keep to go on exactly: the trained weights, their average, the optimizers' moments, the step.

A checkpoint is a folder `step-N`, written beside, flushed and renamed into place: one that has its name is complete.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stillmotion.checkpoints.writing import written_beside
from stillmotion.training.sharding import gathered, gathered_moments, load_moments, part_like

KEEP = 2  # the newest checkpoints that stay on disk


@dataclass
class TrainState:
    """The living state of one run."""

    module: nn.Module
    optimizers: list[torch.optim.Optimizer]
    ema: dict[str, Tensor] | None
    scaler: torch.amp.GradScaler
    """What the loss is multiplied by in half precision; disabled otherwise."""
    step: int = 0

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the trained parameters by name."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return the complete checkpoints of a run as (step, folder), oldest first."""
    found = [(int(m[1]), path) for path in folder.glob("step-*") if (m := re.fullmatch(r"step-(\d+)", path.name))]
    return sorted(found)


def save(state: TrainState, folder: Path, *, writes: bool = True) -> Path:
    """Write the state to `folder/step-N`, whole or not at all, and drop all but the newest two; return the new folder.

    Every process of a world calls it, since each may hold a part of the state; the one that `writes` has it all.
    """
    final = folder / f"step-{state.step}"
    weights = gathered(state.trainable(), keep=writes)
    average = gathered(state.ema or {}, keep=writes)
    moments = [gathered_moments(optimizer, keep=writes) for optimizer in state.optimizers]
    if not writes:
        return final
    if not final.exists():  # what is there was written by the same step
        with written_beside(final) as partial:
            partial.mkdir(parents=True)
            save_file(weights, partial / "weights.safetensors")
            if state.ema is not None:
                save_file(average, partial / "ema.safetensors")
            torch.save(moments, partial / "optimizers.pt")
            if state.scaler.is_enabled():
                (partial / "scaler.json").write_text(json.dumps(state.scaler.state_dict()))
    for _, old in checkpoints(folder)[:-KEEP]:
        shutil.rmtree(old)
    return final


def load_latest(state: TrainState, folder: Path) -> int:
    """Bring `state` to the newest complete checkpoint in `folder`, if there is one; return its step, else 0."""
    found = checkpoints(folder)
    if not found:
        return 0
    step, path = found[-1]
    saved = load_file(path / "weights.safetensors")
    for name, parameter in state.trainable().items():
        parameter.data.copy_(part_like(saved[name], parameter.data))
    if state.ema is not None:
        for name, value in load_file(path / "ema.safetensors").items():
            state.ema[name].copy_(part_like(value, state.ema[name]))
    moments = torch.load(path / "optimizers.pt", weights_only=True)
    for optimizer, moment in zip(state.optimizers, moments, strict=True):
        load_moments(optimizer, moment)
    if state.scaler.is_enabled():
        state.scaler.load_state_dict(json.loads((path / "scaler.json").read_text()))
    return step
