"""What a run must keep to go on exactly: the trained weights, their average, the optimizers' moments, the step.

A checkpoint is a folder `step-N`, written beside, flushed and renamed into place: one that has its name is complete.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stillmotion.checkpoints.writing import written_beside

KEEP = 2  # the newest checkpoints that stay on disk


@dataclass
class TrainState:
    """The living state of one run."""

    module: nn.Module
    optimizers: list[torch.optim.Optimizer]
    ema: dict[str, Tensor] | None
    step: int = 0

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the trained parameters by name."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return the complete checkpoints of a run as (step, folder), oldest first."""
    found = [(int(m[1]), path) for path in folder.glob("step-*") if (m := re.fullmatch(r"step-(\d+)", path.name))]
    return sorted(found)


def save(state: TrainState, folder: Path) -> Path:
    """Write the state to `folder/step-N`, whole or not at all, and drop all but the newest two; return the new folder."""
    final = folder / f"step-{state.step}"
    if not final.exists():  # what is there was written by the same step
        with written_beside(final) as partial:
            partial.mkdir(parents=True)
            weights = {name: p.detach().contiguous() for name, p in state.trainable().items()}
            save_file(weights, partial / "weights.safetensors")
            if state.ema is not None:
                save_file({name: value.contiguous() for name, value in state.ema.items()}, partial / "ema.safetensors")
            torch.save([optimizer.state_dict() for optimizer in state.optimizers], partial / "optimizers.pt")
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
        parameter.data.copy_(saved[name])
    if state.ema is not None:
        state.ema = {name: value.to(state.ema[name]) for name, value in load_file(path / "ema.safetensors").items()}
    moments = torch.load(path / "optimizers.pt", weights_only=True)
    for optimizer, moment in zip(state.optimizers, moments, strict=True):
        optimizer.load_state_dict(moment)
    return step
