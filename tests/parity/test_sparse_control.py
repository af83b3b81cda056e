"""SparseCtrl with the reference's weights: what the reference implementation computes, to 1e-5, in float32."""

from typing import Any

import pytest
import torch

from stillmotion.checkpoints import load
from stillmotion.motion import MotionModule, plug
from stillmotion.sampling import Denoiser
from stillmotion.t2i import T2I
from stillmotion.t2i.controls import load_control

from .conftest import Case
from .test_reference import relative


@pytest.fixture(params=["rgb", "scribble"])
def style(request: pytest.FixtureRequest) -> str:
    return request.param


def predict(case: Case, style: str, strength: float) -> torch.Tensor:
    """Return the prediction for each clip of the case, whose pictures are its own, with motion plugged in."""
    t2i: Any = object.__new__(T2I)  # the case has a UNet alone
    t2i.unet, t2i.source = case.unet, case.name
    outputs = []
    frames, indices = case.io["sample"].shape[2], case.io[f"sparse_{style}_index"].tolist()
    with plug(case.unet, load(case.folder / "mm.ckpt", expect=MotionModule).float(), frames), torch.no_grad():
        model = load_control(case.folder / f"sparsectrl_{style}.ckpt", t2i=t2i)
        assert (model.kind, model.variant) == ("sparse_control", style)
        for clip in range(2):
            pictures = case.io[f"sparse_{style}_cond"][clip].transpose(0, 1)
            if style == "rgb":
                assert model.takes == "latents"
                t2i.encode_images = lambda _, latents=pictures: latents
                pictures = torch.zeros(len(pictures), 3, *case.io["sample"].shape[3:])
            control = model.on(pictures, strength=strength, indices=indices)
            denoiser = Denoiser(case.unet, [control])
            outputs.append(denoiser(case.io["sample"][[clip]], case.io["timestep"][0], case.io["text"][[clip]]))
    return torch.cat(outputs)


def test_output(case: Case, style: str) -> None:
    if not (case.folder / f"sparsectrl_{style}.ckpt").exists():
        pytest.skip("the reference has no SparseCtrl for this variant")
    expected = case.io[f"sparse_{style}_output_0.8"]
    assert relative(predict(case, style, 0.8), expected) <= 1e-5
    assert relative(predict(case, style, 0.0), expected) > 1e-2
    assert relative(predict(case, style, 1.0), expected) > 1e-3
