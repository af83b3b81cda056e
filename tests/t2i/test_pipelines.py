"""Diffusers' own pipelines make clips inside `plug`: `num_images_per_prompt` is the number of frames."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionControlNetInpaintPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from PIL import Image

from stillmotion.motion import MotionModule, plug

FRAMES = 3
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
MASK = Image.fromarray(np.pad(np.full((32, 32), 255, np.uint8), 16))
CALLS: dict[type, dict[str, Any]] = {
    StableDiffusionPipeline: {},
    StableDiffusionImg2ImgPipeline: {"image": PICTURE, "strength": 1.0},
    StableDiffusionInpaintPipeline: {"image": PICTURE, "mask_image": MASK, "strength": 1.0},
    StableDiffusionControlNetPipeline: {"image": PICTURE},
    StableDiffusionControlNetImg2ImgPipeline: {"image": PICTURE, "control_image": PICTURE, "strength": 1.0},
    StableDiffusionControlNetInpaintPipeline: {"image": PICTURE, "mask_image": MASK, "control_image": PICTURE},
}


@pytest.fixture
def motion() -> MotionModule:
    """Return a module that fits the tiny model and moves it."""
    module = MotionModule.from_variant("v3", block_out_channels=(32, 64)).eval()
    generator = torch.Generator().manual_seed(0)
    for site in module.sites().values():
        torch.nn.init.normal_(site.proj_out.weight, std=0.2, generator=generator)
    return module


@pytest.mark.filterwarnings("ignore:You have passed .* initial images:FutureWarning")  # one picture begins all frames
@pytest.mark.parametrize("kind", CALLS, ids=lambda kind: kind.__name__)
def test_every_pipeline_makes_a_clip(pipe: StableDiffusionPipeline, motion: MotionModule, kind: type) -> None:
    parts = dict(pipe.components)
    if "ControlNet" in kind.__name__:
        # Trained ones begin as the UNet's own encoder behind convolutions of zeros; random ones do something.
        controlnet = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(16, 32))
        for block in controlnet.controlnet_down_blocks:
            torch.nn.init.normal_(block.weight, std=0.1, generator=torch.Generator().manual_seed(1))
        parts["controlnet"] = controlnet
    made = kind(**parts, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)

    def clip(**changed: Any) -> np.ndarray:
        call: dict[str, Any] = {"prompt": "a cat", "num_inference_steps": 1, "height": 64, "width": 64, **CALLS[kind]}
        if "Img2Img" in kind.__name__:
            del call["height"], call["width"]  # the picture's own
        call |= {"num_images_per_prompt": FRAMES, "output_type": "np", **changed}
        return made(generator=torch.Generator().manual_seed(0), **call).images

    still = clip()
    with plug(made.unet, motion, FRAMES):
        moving = clip()
        if kind is StableDiffusionPipeline:
            two = clip(prompt=["a cat", "a dog"], negative_prompt=["blurred", "small"])
            assert two.shape == (2 * FRAMES, 64, 64, 3)
    assert moving.shape == (FRAMES, 64, 64, 3)
    assert not np.allclose(moving, still, atol=1e-3)  # the frames saw each other
    np.testing.assert_array_equal(clip(), still)  # and none does any more
