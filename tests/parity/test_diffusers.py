"""Against diffusers' `UNetMotionModel`, whose motion norm pools over frames: one function, alone and with all that
diffusers can attach to it.
"""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from peft import LoraConfig

from stillmotion.motion import MotionModule, plug
from stillmotion.sampling import Denoiser

WIDTHS = (32, 64, 64, 64)
FRAMES = 4


@pytest.fixture(autouse=True)
def _in_float64() -> Iterator[None]:
    """Compute in float64: in float32 these random weights magnify what two processors round otherwise to about 1e-5."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def shake(module: torch.nn.Module, seed: int) -> None:
    """Give every parameter a random value, so that nothing is zero by birth."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = 0.6 * noise / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else parameter + 0.2 * noise
        parameter.requires_grad_("lora" in name)


class Pair:
    """One set of weights as our UNet with motion plugged in, and as diffusers' motion UNet."""

    def __init__(self, variant: str) -> None:
        self.unet = UNet2DConditionModel(
            sample_size=8, block_out_channels=WIDTHS, layers_per_block=1, cross_attention_dim=16, attention_head_dim=4
        ).eval()
        self.motion = MotionModule.from_variant(
            variant, block_out_channels=WIDTHS, layers_per_block=1, motion_norm="across_frames"
        ).eval()
        shake(self.unet, 1)
        shake(self.motion, 2)
        adapter = MotionAdapter(
            block_out_channels=WIDTHS,
            motion_layers_per_block=1,
            use_motion_mid_block=self.motion.geometry.has_mid_block,
        )
        adapter.load_state_dict(self.motion.state_dict(), strict=True)
        self.theirs = UNetMotionModel.from_unet2d(self.unet, adapter).eval()
        generator = torch.Generator().manual_seed(3)
        self.latents = torch.randn(2, 4, FRAMES, 8, 8, generator=generator)
        self.text = torch.randn(2, 5, 16, generator=generator)

    def ours(self, **extra: Any) -> torch.Tensor:
        """Return what our denoiser predicts; `extra` is in image layout."""
        with torch.no_grad():
            return Denoiser(self.unet)(self.latents, 321, self.text, **extra)

    def other(self, **extra: Any) -> torch.Tensor:
        """Return what diffusers' motion UNet predicts."""
        rows = self.text.repeat_interleave(FRAMES, 0)
        with torch.no_grad():
            return self.theirs(self.latents, 321, encoder_hidden_states=rows, **extra).sample


@pytest.fixture(params=["v2", "v3"])
def pair(request: pytest.FixtureRequest) -> Pair:
    """Return the two for one variant."""
    return Pair(request.param)


def assert_equal(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Hold the relative difference to 1e-5, to 1e-10 in float64, and check that there is something to compare."""
    allowed = 1e-10 if ours.dtype is torch.float64 else 1e-5
    assert float((ours - theirs).norm() / theirs.norm()) <= allowed
    assert float(theirs.std()) > 0.01


def test_alone(pair: Pair) -> None:
    still = pair.ours()
    with plug(pair.unet, pair.motion, FRAMES):
        ours = pair.ours()
    assert_equal(ours, pair.other())
    assert not torch.allclose(ours, still, rtol=0.01)


def test_with_loras_on_the_image_layers_and_on_the_motion_layers(pair: Pair) -> None:
    """The same peft adapters, put on both by the same names."""
    plain = pair.other()
    config = LoraConfig(r=2, lora_alpha=3, init_lora_weights=False, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
    with plug(pair.unet, pair.motion, FRAMES):
        pair.unet.add_adapter(copy.deepcopy(config), "style")
        pair.theirs.add_adapter(copy.deepcopy(config), "style")
        state = {name: value for name, value in pair.unet.state_dict().items() if "lora" in name}
        assert any("motion_modules" in name for name in state)
        assert any("attn2.to_k" in name and "motion_modules" not in name for name in state)
        missing, unexpected = pair.theirs.load_state_dict(state, strict=False)
        assert not unexpected
        assert not [name for name in missing if "lora" in name]
        theirs = pair.other()
        assert_equal(pair.ours(), theirs)
        assert not torch.allclose(theirs, plain, rtol=0.01)


def test_with_controlnet_residuals(pair: Pair) -> None:
    controlnet = ControlNetModel.from_unet(pair.unet, conditioning_channels=3).eval()
    shake(controlnet, 4)
    images = pair.latents.transpose(1, 2).flatten(0, 1)
    with torch.no_grad():
        down, mid = controlnet(
            images,
            321,
            encoder_hidden_states=pair.text.repeat_interleave(FRAMES, 0),
            controlnet_cond=torch.rand(len(images), 3, 64, 64, generator=torch.Generator().manual_seed(5)),
            return_dict=False,
        )
    extra = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
    with plug(pair.unet, pair.motion, FRAMES):
        theirs = pair.other(**extra)
        assert_equal(pair.ours(**extra), theirs)
    assert not torch.allclose(theirs, pair.other(), rtol=0.01)


def test_with_an_ip_adapter(pair: Pair) -> None:
    adapter = make_ip_adapter(pair.unet)
    pair.theirs._load_ip_adapter_weights([copy.deepcopy(adapter)])
    pictures = torch.randn(2, 1, 24, generator=torch.Generator().manual_seed(6))
    with plug(pair.unet, pair.motion, FRAMES):
        plain = pair.ours()
        pair.unet._load_ip_adapter_weights([adapter])
        theirs = pair.other(added_cond_kwargs={"image_embeds": [pictures]})
        ours = pair.ours(added_cond_kwargs={"image_embeds": [pictures.repeat_interleave(FRAMES, 0)]})
    assert_equal(ours, theirs)
    assert not torch.allclose(ours, plain, rtol=0.01)


def make_ip_adapter(unet: UNet2DConditionModel) -> dict[str, dict[str, torch.Tensor]]:
    """Return a random IP-Adapter of the plain kind, as its files are laid out: 4 tokens of a picture's 24 features."""
    generator = torch.Generator().manual_seed(7)
    width = unet.config.cross_attention_dim
    layers = {}
    crossed = [a for name, a in unet.named_modules() if name.endswith("attn2") and "motion_modules" not in name]
    for index, attention in enumerate(crossed):
        for leaf in ("to_k_ip", "to_v_ip"):
            layers[f"{2 * index + 1}.{leaf}.weight"] = torch.randn(attention.inner_dim, width, generator=generator)
    projection = {
        "proj.weight": 0.2 * torch.randn(4 * width, 24, generator=generator),
        "proj.bias": torch.zeros(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    return {"image_proj": projection, "ip_adapter": layers}
