"""Plugging in and out: what plugs in comes out, nothing is copied, gradients go where they should."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DConditionModel

from stillmotion.errors import MismatchError
from stillmotion.motion import MotionModule, plug

Maker = Callable[..., MotionModule]
Inputs = dict[str, torch.Tensor]


def hooks(module: torch.nn.Module) -> int:
    """Return how many forward hooks a model has."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@pytest.mark.parametrize("variant", ["v1", "v2", "v3"])
def test_unplug_leaves_no_trace(unet: UNet2DConditionModel, make_motion: Maker, inputs: Inputs, variant: str) -> None:
    before, keys = unet(**inputs).sample, list(unet.state_dict())
    with plug(unet, make_motion(variant), 4):
        assert not torch.equal(unet(**inputs).sample, before)
    assert torch.equal(unet(**inputs).sample, before)
    assert list(unet.state_dict()) == keys
    assert hooks(unet) == 0


def test_an_untrained_module_moves_nothing(unet: UNet2DConditionModel, inputs: Inputs) -> None:
    before = unet(**inputs).sample
    silent = MotionModule.from_variant("v3", block_out_channels=(32, 64, 64, 64), layers_per_block=1)
    with plug(unet, silent, 4):
        assert torch.equal(unet(**inputs).sample, before)


def test_nothing_is_copied_and_modules_are_reached(unet: UNet2DConditionModel, make_motion: Maker) -> None:
    motion = make_motion()
    before = {parameter.data_ptr() for parameter in (*unet.parameters(), *motion.parameters())}
    with plug(unet, motion, 4):
        assert {parameter.data_ptr() for parameter in unet.parameters()} == before
        unet.to(torch.float64)
        assert next(motion.parameters()).dtype == torch.float64


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("variant", ["v1", "v2", "v3"])
def test_gradients(
    unet: UNet2DConditionModel, make_motion: Maker, inputs: Inputs, variant: str, checkpointing: bool
) -> None:
    motion = make_motion(variant).requires_grad_(True)
    unet.train()
    if checkpointing:
        unet.enable_gradient_checkpointing()
    with plug(unet, motion, 4):
        unet(**inputs | {"sample": inputs["sample"].requires_grad_(True)}).sample.square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in motion.parameters())
    assert all(p.grad is None for p in unet.parameters())


def test_gradients_are_the_same_with_checkpointing(
    unet: UNet2DConditionModel, make_motion: Maker, inputs: Inputs
) -> None:
    motion = make_motion("v2").requires_grad_(True)
    found = []
    for checkpointing in (False, True):
        unet.train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        motion.zero_grad()
        with plug(unet, motion, 4):
            unet(**inputs).sample.square().sum().backward()
        found.append([p.grad.clone() for p in motion.parameters() if p.grad is not None])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-4, atol=1e-5 * float(plain.abs().max()))


COMPILE = """
import torch
from diffusers import UNet2DConditionModel
from stillmotion.motion import MotionModule, plug

unet = UNet2DConditionModel(
    sample_size=8, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=16, attention_head_dim=4,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
).eval()
inputs = torch.randn(8, 4, 8, 8), torch.tensor(321), torch.randn(8, 5, 16)
for variant, built in (("v1", "transformer"), ("v2", "transformer"), ("v3", "transformer"), ("v2", "temporal_conv")):
    motion = MotionModule.from_variant(
        variant, block_out_channels=(32, 64), layers_per_block=1, architecture=built
    ).eval()
    for site in motion.sites().values():
        torch.nn.init.normal_(site.proj_out.weight, std=0.1)
    torch._dynamo.reset()
    with plug(unet, motion, 4), torch.no_grad():
        eager = unet(*inputs).sample
        compiled = torch.compile(unet, fullgraph=True, backend="eager")(*inputs).sample
        explained = torch._dynamo.explain(unet)(*inputs)
        assert explained.graph_count == 1, explained
    torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-5)
"""


PLUG_QUICKLY = """
import time
import torch
from diffusers import UNet2DConditionModel
from stillmotion.motion import MotionModule, plug

with torch.device("meta"):
    unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
    motion = MotionModule.from_variant("v3", block_out_channels=(320, 640, 1280, 1280))
took = []
for _ in range(5):
    started = time.perf_counter()
    plugged = plug(unet, motion, 16)
    took.append(time.perf_counter() - started)
    plugged.unplug()
assert min(took) < 0.010, took
"""


@pytest.mark.parametrize("script", [COMPILE, PLUG_QUICKLY], ids=["compiles to one graph", "sd15 in under 10 ms"])
def test_without_the_shape_checks(script: str) -> None:
    """In a process of its own: tests run the shape annotations, which cost time and which dynamo cannot trace."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_frames_can_be_changed_between_forwards(unet: UNet2DConditionModel, make_motion: Maker, inputs: Inputs) -> None:
    with plug(unet, make_motion(), 4) as plugged:
        four = unet(**inputs).sample
        plugged.num_frames = 8
        assert not torch.equal(unet(**inputs).sample, four)
        plugged.num_frames = 4
        assert torch.equal(unet(**inputs).sample, four)


def test_what_does_not_fit_is_refused_and_nothing_changes(
    unet: UNet2DConditionModel, make_motion: Maker, inputs: Inputs
) -> None:
    wide = MotionModule.from_variant("v3", block_out_channels=(64, 64, 64, 64), layers_per_block=1)
    with torch.device("meta"):
        sdxl = MotionModule.from_variant("sdxl_beta", block_out_channels=(320, 640, 1280))
    before = unet(**inputs).sample
    for wrong, said in (
        (lambda: plug(unet, wide, 4), r"widths \(64, 64, 64, 64\).*widths \(32, 64, 64, 64\)"),
        (lambda: plug(unet, sdxl, 4), "sdxl"),
        (lambda: plug(unet, make_motion(), 33), "num_frames is 33.*1 to 32"),
        (lambda: plug(unet, make_motion("v1"), 25), "num_frames is 25.*1 to 24"),
        (lambda: plug(unet, make_motion(), 0), "num_frames is 0"),
        (lambda: plug(torch.nn.Linear(2, 2), make_motion(), 4), "UNet2DConditionModel"),
    ):
        with pytest.raises(MismatchError, match=said):
            wrong()
        assert hooks(unet) == 0
    assert torch.equal(unet(**inputs).sample, before)


def test_a_second_module_and_an_odd_batch_are_refused(
    unet: UNet2DConditionModel, make_motion: Maker, inputs: Inputs
) -> None:
    with plug(unet, make_motion(), 3):
        with pytest.raises(MismatchError, match="already"):
            plug(unet, make_motion(), 3)
        with pytest.raises(MismatchError, match="8 images does not divide into clips of 3"):
            unet(**inputs)
