"""Tiny models with random weights, made anew for each test: plugging changes them."""

from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DConditionModel

from stillmotion.motion import MotionModule

WIDTHS = (32, 64, 64, 64)


def shake(module: torch.nn.Module, seed: int) -> None:
    """Give every parameter a random value of a sensible size, the zero-initialised ones and the norms too."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        parameter.data = 0.6 * noise / fan_in**0.5 if parameter.ndim > 1 else parameter.data + 0.2 * noise


@pytest.fixture
def unet() -> UNet2DConditionModel:
    """Return a UNet with Stable Diffusion 1.5's layout, narrow."""
    torch.manual_seed(0)  # biases keep a part of what they are born with
    made = UNet2DConditionModel(
        sample_size=8, block_out_channels=WIDTHS, layers_per_block=1, cross_attention_dim=16, attention_head_dim=4
    )
    shake(made, 1)
    return made.eval().requires_grad_(False)


@pytest.fixture
def make_motion() -> Callable[..., MotionModule]:
    """Return a maker of motion modules that fit the UNet and move it."""

    def make(variant: str = "v3", **options: object) -> MotionModule:
        torch.manual_seed(0)
        module = MotionModule.from_variant(variant, block_out_channels=WIDTHS, layers_per_block=1, **options)
        shake(module, 2)
        return module.eval().requires_grad_(False)

    return make


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    """Return two clips of four frames in image layout, with a text row per frame."""
    generator = torch.Generator().manual_seed(3)
    return {
        "sample": torch.randn(8, 4, 8, 8, generator=generator),
        "timestep": torch.tensor(321),
        "encoder_hidden_states": torch.randn(8, 5, 16, generator=generator),
    }
