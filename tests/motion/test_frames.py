"""Motion by the dial, strengths frame by frame, and attention through windows of its own."""

from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DConditionModel

from stillmotion.errors import MismatchError
from stillmotion.motion import DomainAdapter, MotionLora, MotionModule, plug

Make = Callable[..., MotionModule]
Inputs = dict[str, torch.Tensor]

WINDOWS = [((0, 1, 2, 3), (1.0, 1.0, 0.7, 0.4)), ((2, 3, 4, 5), (0.3, 0.6, 1.0, 1.0))]


@torch.no_grad()
def out(unet: UNet2DConditionModel, inputs: Inputs) -> torch.Tensor:
    return unet(**inputs).sample


def frames_of(inputs: Inputs, frames: list[int]) -> Inputs:
    return {**inputs, **{k: inputs[k][frames] for k in ("sample", "encoder_hidden_states")}}


def lora(seed: int) -> MotionLora:
    paths = [f"{block}.motion_modules.0.transformer_blocks.0.attn1.{to}" for block, to in PATHS]
    generator = torch.Generator().manual_seed(seed)
    sizes = {"down_blocks.1": 64, "up_blocks.3": 32}
    return MotionLora(
        weights={
            path: tuple(torch.randn(shape, generator=generator) for shape in ((2, size), (size, 2)))
            for path in paths
            for size in [sizes[path.partition(".motion_modules")[0]]]
        }
    )


PATHS = [("down_blocks.1", "to_q"), ("down_blocks.1", "to_v"), ("up_blocks.3", "to_k"), ("up_blocks.3", "to_out.0")]


@pytest.mark.parametrize("variant", ["v1", "v3"])
def test_strength_one_is_as_ever_and_zero_is_the_image_model(
    unet: UNet2DConditionModel, make_motion: Make, inputs: Inputs, variant: str
) -> None:
    still = out(unet, inputs)
    with plug(unet, make_motion(variant), 4) as plugged:
        moved = out(unet, inputs)
        plugged.motion_strength = [1.0] * 4
        assert plugged.motion_strength == 1.0 and torch.equal(out(unet, inputs), moved)
        plugged.motion_strength = 0
        assert torch.equal(out(unet, inputs), still)
        plugged.motion_strength = 0.5
        half = out(unet, inputs)
    assert not torch.allclose(half, moved, atol=1e-3) and not torch.allclose(half, still, atol=1e-3)
    assert torch.equal(out(unet, inputs), still)


def test_strength_scales_what_a_site_adds_frame_by_frame(
    unet: UNet2DConditionModel, make_motion: Make, inputs: Inputs
) -> None:
    motion = make_motion()

    def entering(strength: object) -> torch.Tensor:
        """Return what leaves the first site, with motion of a strength or none."""
        seen: list[torch.Tensor] = []
        host = unet.down_blocks[0].downsamplers[0]
        handle = host.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        if strength is None:
            out(unet, inputs)
        else:
            with plug(unet, motion, 4) as plugged:
                plugged.motion_strength = strength
                out(unet, inputs)
        handle.remove()
        return seen[0]

    still = entering(None)
    scale = torch.tensor([0.0, 0.5, 1.0, 2.0]).repeat(2).view(-1, 1, 1, 1)
    expected = still + scale * (entering(1.0) - still)
    torch.testing.assert_close(entering([0.0, 0.5, 1.0, 2.0]), expected, rtol=1e-4, atol=1e-4)


def test_a_window_has_the_strengths_of_its_frames(
    unet: UNet2DConditionModel, make_motion: Make, inputs: Inputs
) -> None:
    part = frames_of(inputs, [0, 1, 4, 5])
    with plug(unet, make_motion(), 2) as plugged:
        plugged.motion_strength = [0.1, 0.9, 0.3, 0.6]
        plugged.look([3, 1])
        windowed = out(unet, part)
        plugged.look([0, 1])
        assert not torch.allclose(out(unet, part), windowed, atol=1e-4)
        plugged.motion_strength = [0.6, 0.9]
        assert torch.equal(out(unet, part), windowed)
        plugged.look([1, 2])
        with pytest.raises(MismatchError, match="2 values were given per frame, but frame 2"):
            out(unet, part)


def test_a_motion_lora_acts_on_each_frame_with_its_own_strength(
    unet: UNet2DConditionModel, make_motion: Make, inputs: Inputs
) -> None:
    zoom = lora(5)
    with plug(unet, make_motion(), 4) as plugged:
        plain = out(unet, inputs)
        plugged.add(zoom, strength=[0.7] * 4)
        steady = out(unet, inputs)
        plugged.set_strength(zoom, [0.7, 0.7, 0.7, 0.0])
        varied = out(unet, inputs)
        assert not torch.allclose(varied, steady, atol=1e-4) and not torch.allclose(varied, plain, atol=1e-4)
        plugged.set_strength(zoom, [0.0] * 4)
        assert torch.equal(out(unet, inputs), plain)
        plugged.set_strength(zoom, [0.7, 0.7, 0.7, 0.7, 0.2])  # the fifth frame is not at hand
        torch.testing.assert_close(out(unet, inputs), steady, rtol=1e-5, atol=1e-5)
        plugged.remove(zoom)
        assert torch.equal(out(unet, inputs), plain)


def test_each_frame_s_query_has_its_own_update(make_motion: Make) -> None:
    """Against weights merged by hand, one frame at a time."""
    motion = make_motion()
    unet = UNet2DConditionModel(block_out_channels=(32, 64, 64, 64), layers_per_block=1, cross_attention_dim=16)
    path = "down_blocks.1.motion_modules.0.transformer_blocks.0.attn1.to_q"
    down, up = torch.randn(2, 64), torch.randn(64, 2)
    tokens = torch.randn(2, 3, 5, 64)
    with plug(unet, motion, 3) as plugged, torch.no_grad():
        weight = unet.get_submodule(path).weight
        plugged.add(MotionLora(weights={path: (down, up)}), strength=[0.0, 0.5, -1.0])
        found = unet.get_submodule(path)(tokens)
        for frame, strength in enumerate((0.0, 0.5, -1.0)):
            merged = tokens[:, frame] @ (weight + strength * up @ down).T
            torch.testing.assert_close(found[:, frame], merged, rtol=1e-4, atol=1e-4)


def test_a_domain_adapter_has_one_strength(unet: UNet2DConditionModel, make_motion: Make) -> None:
    path = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    adapter = DomainAdapter(weights={path: (torch.zeros(1, 64), torch.zeros(64, 1))})
    with plug(unet, make_motion(), 2) as plugged:
        with pytest.raises(MismatchError, match="one strength for all frames"):
            plugged.add(adapter, strength=[0.0, 1.0])
        assert not hasattr(unet.get_submodule(path), "lora_A")


@pytest.mark.parametrize("num_frames", [18, 19, 22])
def test_within_windows_a_block_that_adds_nothing_changes_nothing(num_frames: int) -> None:
    """In diffusers' FreeNoise the last frames are halved at these lengths."""
    from stillmotion.motion.frames import FrameCount
    from stillmotion.sampling import Context

    site = next(
        iter(
            MotionModule.from_variant("v3", block_out_channels=(32,), layers_per_block=1, max_frames=16)
            .sites()
            .values()
        )
    )
    block = site.transformer_blocks[0]
    for attention in (block.attn1, block.attn2):
        torch.nn.init.zeros_(attention.to_out[0].weight)
        torch.nn.init.zeros_(attention.to_out[0].bias)
    windows = Context(length=16, overlap=12).windows(num_frames)
    block.frames = FrameCount(num_frames, windows=tuple((w.frames, w.weights) for w in windows))
    tokens = torch.randn(2, num_frames, 3, 32)
    with torch.no_grad():
        assert torch.equal(block._by_window(tokens), tokens)


def test_within_windows_attention_is_that_of_the_windows_averaged(make_motion: Make) -> None:
    from stillmotion.motion.frames import FrameCount

    block = next(iter(make_motion(max_frames=4).sites().values())).transformer_blocks[0]
    tokens = torch.randn(1, 6, 3, 32)
    block.frames = FrameCount(6, windows=tuple(WINDOWS))
    with torch.no_grad():
        expected = torch.zeros_like(tokens)
        for places, weights in WINDOWS:
            expected[:, list(places)] += block._attended(tokens[:, list(places)]) * torch.tensor(weights).view(-1, 1, 1)
        found = block(tokens)
        torch.testing.assert_close(found, expected + block.ff(block.norm3(expected)), rtol=1e-4, atol=1e-4)


def test_within_one_window_it_is_as_ever(unet: UNet2DConditionModel, make_motion: Make, inputs: Inputs) -> None:
    with plug(unet, make_motion(), 4) as plugged:
        moved = out(unet, inputs)
        plugged.attend_within([((0, 1, 2, 3), (1.0,) * 4)])
        assert torch.equal(out(unet, inputs), moved)
        plugged.attend_within([((0, 1, 2), (1.0, 0.5, 0.5)), ((1, 2, 3), (0.5, 0.5, 1.0))])
        assert not torch.allclose(out(unet, inputs), moved, atol=1e-4)
        plugged.num_frames = 4
        assert torch.equal(out(unet, inputs), moved)


def test_within_windows_there_may_be_more_frames_than_positions(
    unet: UNet2DConditionModel, make_motion: Make, inputs: Inputs
) -> None:
    motion, six = make_motion(max_frames=4), frames_of(inputs, [0, 1, 2, 3, 4, 5])
    with plug(unet, motion, 4) as plugged:
        plugged.attend_within(WINDOWS)
        plugged.look(range(6))
        zoom = lora(5)
        plugged.add(zoom, strength=[0.0, 0.0, 0.0, 0.0, 0.5, 1.0])
        varied = out(unet, six)
        plugged.set_strength(zoom, 0.0)
        assert not torch.allclose(varied, out(unet, six), atol=1e-4)
        with pytest.raises(MismatchError, match="positions for 1 to 4 frames"):
            plugged.attend_within([(range(6), (1.0,) * 6)])
        with pytest.raises(MismatchError, match="leave out frames"):
            plugged.attend_within([((0, 1), (1.0, 1.0)), ((3, 4), (1.0, 1.0))])
    with plug(unet, motion, 4) as plugged, pytest.raises(MismatchError, match="positions for 1 to 4 frames"):
        plugged.look(range(6))
