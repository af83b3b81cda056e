"""Depth through a tiny random model of a folder, as transformers' own pipeline finds it; one scale for a clip."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessorPil, pipeline

from stillmotion.errors import FileError
from stillmotion.t2i.depth import DepthModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("depth")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
    config = DPTConfig(
        **sizes,
        image_size=32,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        is_hybrid=False,
    )
    DPTForDepthEstimation(config).save_pretrained(path)
    DPTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


def test_a_clip_has_one_scale(folder: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 40, 48, 3), np.uint8)
    near = DepthModel(folder)(frames)
    assert near.shape == (3, 3, 40, 48) and near.min() == 0 and near.max() == 1
    theirs = pipeline("depth-estimation", model=str(folder))
    depth = torch.stack([theirs(Image.fromarray(frame))["predicted_depth"].squeeze() for frame in frames])
    torch.testing.assert_close(near[:, 0], (depth - depth.min()) / (depth.max() - depth.min()))
    assert torch.equal(near[:, 0], near[:, 2])


def test_metres_become_nearness(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric model says how far things are: 1, 2 and 4 metres are 1, 1/2 and 1/4, from the nearest to the farthest."""
    model = DepthModel(folder)
    metres = torch.tensor([[1.0, 2.0, 4.0]])
    monkeypatch.setattr(model, "metric", True)
    monkeypatch.setattr(model, "_estimate", lambda _: {"predicted_depth": metres})
    near = model(np.zeros((2, 1, 3, 3), np.uint8))
    torch.testing.assert_close(near[1, 0, 0], torch.tensor([1.0, 1 / 3, 0.0]))


@pytest.mark.parametrize(("name", "message"), [("no", "does not exist"), ("empty", "has no config.json")])
def test_what_is_no_depth_model(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match=f"{name} {message}; expected a folder of a depth model"):
        DepthModel(tmp_path / name)


def test_another_model_is_no_depth_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip_text_model"}')
    with pytest.raises(FileError, match="is no depth model that can be loaded"):
        DepthModel(tmp_path)
