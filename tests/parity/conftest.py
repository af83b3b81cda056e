"""The reference's own outputs, and the files they were computed from (written anew, from seeds by name)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from .materialize import materialize

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Case:
    """One variant: its files on disk, its UNet, the reference's inputs and outputs."""

    name: str
    folder: Path
    unet: UNet2DConditionModel
    io: dict[str, torch.Tensor]
    motion_config: dict[str, Any]


@pytest.fixture(scope="session", params=["v1", "v2", "v3"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Return the case, its checkpoints in the reference's dialects."""
    folder = tmp_path_factory.mktemp(request.param)
    materialize(DATA / request.param, folder)
    spec = json.loads((DATA / request.param / "spec.json").read_text())
    unet = UNet2DConditionModel(**spec["unet"])
    unet.load_state_dict({name: value.float() for name, value in load_file(folder / "unet2d.safetensors").items()})
    io = load_file(DATA / request.param / "io.safetensors")
    return Case(request.param, folder, unet.eval().requires_grad_(False), io, spec["motion"])
