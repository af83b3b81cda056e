"""The convolutional motion module: as large as the transformer, each place on its own, clips of any length."""

from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st

from stillmotion.errors import MismatchError
from stillmotion.motion import DomainAdapter, MotionGeometry, MotionLora, MotionModule, plug
from stillmotion.motion.convolution import ConvolutionBlock, FrameConvolution, TemporalConvolution
from stillmotion.motion.lora import new_adapter
from stillmotion.motion.module import TemporalTransformer

from .conftest import shake

Maker = Callable[..., MotionModule]
Inputs = dict[str, torch.Tensor]

SD15 = (320, 640, 1280, 1280)
GEOMETRY = MotionGeometry(block_out_channels=(32,), architecture="temporal_conv")


@pytest.mark.parametrize(("variant", "count"), [("v1", 417_049_600), ("v2", 453_114_880), ("v3", 417_049_600)])
def test_it_is_as_large_as_the_transformer(variant: str, count: int) -> None:
    with torch.device("meta"):
        convolution = MotionModule.from_variant(variant, block_out_channels=SD15, architecture="temporal_conv")
        transformer = MotionModule.from_variant(variant, block_out_channels=SD15)
    counts = [sum(p.numel() for p in module.parameters()) for module in (convolution, transformer)]
    assert counts[0] == count
    assert abs(counts[0] / counts[1] - 1) < 0.0003


@settings(max_examples=20, deadline=None)
@given(frames=st.integers(1, 12), places=st.integers(1, 6), batch=st.integers(1, 2))
def test_it_is_a_convolution_over_the_frames_of_each_place(frames: int, places: int, batch: int) -> None:
    layer = FrameConvolution(8)
    plain = torch.nn.Conv1d(8, 8, 5, padding=2)
    plain.load_state_dict({"weight": layer.weight[..., 0], "bias": layer.bias})
    tokens = torch.randn(batch, frames, places, 8)
    expected = torch.stack([plain(tokens[:, :, place].transpose(1, 2)).transpose(1, 2) for place in range(places)], 2)
    torch.testing.assert_close(layer(tokens), expected, rtol=1e-4, atol=1e-5)


def test_tokens_are_not_transposed() -> None:
    assert FrameConvolution(32)(torch.randn(2, 4, 9, 32)).is_contiguous()


def test_a_block_reaches_four_frames_and_no_other_place() -> None:
    block = ConvolutionBlock(32)
    shake(block, 1)
    tokens = torch.randn(1, 12, 3, 32)
    changed = tokens.clone()
    changed[0, 2, 1] += torch.randn(32)
    difference = (block(tokens) - block(changed)).abs().amax(-1)[0]
    assert (difference[:7, 1] > 1e-6).all()
    assert (difference[7:] == 0).all() and (difference[:, (0, 2)] == 0).all()


@pytest.mark.parametrize("motion_norm", ["per_frame", "across_frames"])
def test_at_birth_it_changes_nothing(motion_norm: str) -> None:
    site = TemporalConvolution(32, GEOMETRY, motion_norm)
    features = torch.randn(6, 32, 4, 4)
    assert torch.equal(site(features, 3), features)
    shake(site, 1)
    assert not torch.equal(site(features, 3), features)
    torch.testing.assert_close(site(features, 3)[:3], site(features[:3], 3))  # clips do not see each other


def test_the_order_of_layers_is_the_transformers() -> None:
    """A seed's random values, and an optimiser's state, go by it."""
    for kind, blocks in ((TemporalTransformer, "transformer_blocks"), (TemporalConvolution, "convolution_blocks")):
        site = kind(32, GEOMETRY, "per_frame")
        assert [name for name, _ in site.named_children()] == ["norm", "proj_in", blocks, "proj_out"]


def test_clips_of_any_length_and_windows_of_them(
    unet: UNet2DConditionModel, make_motion: Maker, inputs: Inputs
) -> None:
    motion = make_motion(architecture="temporal_conv")
    assert motion.max_frames is None
    with plug(unet, motion, 4) as plugged, torch.no_grad():
        four = unet(**inputs).sample
        for frames in (1, 8):
            plugged.num_frames = frames
            assert not torch.equal(unet(**inputs).sample, four)
        plugged.num_frames = 64
        plugged.num_frames = 4
        assert torch.equal(unet(**inputs).sample, four)
        with pytest.raises(MismatchError, match="num_frames is 0, expected 1 or more"):
            plugged.num_frames = 0


@pytest.mark.parametrize("variant", ["v1", "v2", "v3"])
def test_it_plugs_in_and_leaves_no_trace(
    unet: UNet2DConditionModel, make_motion: Maker, inputs: Inputs, variant: str
) -> None:
    before, keys = unet(**inputs).sample, list(unet.state_dict())
    with plug(unet, make_motion(variant, architecture="temporal_conv"), 4):
        assert not torch.equal(unet(**inputs).sample, before)
    assert torch.equal(unet(**inputs).sample, before)
    assert list(unet.state_dict()) == keys


def test_gradients_are_the_same_with_checkpointing(
    unet: UNet2DConditionModel, make_motion: Maker, inputs: Inputs
) -> None:
    motion = make_motion("v2", architecture="temporal_conv").requires_grad_(True)
    found = []
    unet.train()
    for checkpointing in (False, True):
        if checkpointing:
            unet.enable_gradient_checkpointing()
        motion.zero_grad()
        with plug(unet, motion, 4):
            unet(**inputs).sample.square().sum().backward()
        found.append([p.grad.clone() for p in motion.parameters() if p.grad is not None])
    assert len(found[0]) == len(list(motion.parameters()))
    for plain, again in zip(*found, strict=True):
        assert plain.abs().sum() > 0
        torch.testing.assert_close(again, plain, rtol=1e-4, atol=1e-5 * float(plain.abs().max()))


def test_a_motion_lora_is_refused(unet: UNet2DConditionModel, make_motion: Maker, inputs: Inputs) -> None:
    pair = torch.randn(2, 64), torch.randn(64, 2)
    with plug(unet, make_motion(architecture="temporal_conv"), 4) as plugged, torch.no_grad():
        plain, keys = unet(**inputs).sample, list(unet.state_dict())
        for layer in ("transformer_blocks.0.attn1.to_q", "proj_in"):
            zoom = MotionLora(weights={f"down_blocks.1.motion_modules.0.{layer}": pair})
            with pytest.raises(MismatchError, match="updates the attention over frames, and this temporal_conv module"):
                plugged.add(zoom)
        assert list(unet.state_dict()) == keys
        plugged.add(DomainAdapter(weights={"mid_block.attentions.0.transformer_blocks.0.attn1.to_v": pair}))
        assert not torch.equal(unet(**inputs).sample, plain)


def test_an_adapter_of_no_layer_is_refused(unet: UNet2DConditionModel) -> None:
    with pytest.raises(MismatchError, match="no layer here that a MotionLora could update"):
        new_adapter(MotionLora, unet, [], 4, torch.Generator())


def test_geometry_is_read_from_names_and_shapes() -> None:
    module = MotionModule.from_variant("v2", block_out_channels=(32, 64), architecture="temporal_conv")
    assert MotionGeometry.from_shapes({name: value.shape for name, value in module.state_dict().items()}) == (
        module.geometry
    )
    assert (module.architecture.name, len(module.sites())) == ("temporal_conv", 11)


def test_the_transformer_is_the_default_and_unknown_names_are_refused() -> None:
    assert MotionModule.from_variant("v3", block_out_channels=(32,)).geometry.architecture == "transformer"
    with pytest.raises(MismatchError, match="'conv' is unknown; expected one of transformer, temporal_conv"):
        MotionModule.from_variant("v3", block_out_channels=(32,), architecture="conv")
