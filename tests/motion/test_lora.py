"""Adapters over peft: added, dialled, removed, and the stored weights never touched."""

from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig

from stillmotion.errors import MismatchError
from stillmotion.motion import DomainAdapter, LoraAdapter, MotionLora, MotionModule, plug

Maker = Callable[..., MotionModule]
Inputs = dict[str, torch.Tensor]


def lora_for(root: torch.nn.Module, kind: type[LoraAdapter], ends: tuple[str, ...], rank: int = 3) -> LoraAdapter:
    """Return random updates of the layers whose paths end so."""
    generator = torch.Generator().manual_seed(rank)
    weights = {}
    for path, layer in root.named_modules():
        if path.endswith(ends) and isinstance(layer, torch.nn.Linear):
            outputs, inputs = layer.weight.shape
            down, up = torch.randn(rank, inputs, generator=generator), torch.randn(outputs, rank, generator=generator)
            weights[path] = (0.1 * down, 0.1 * up)
    return kind(weights=weights, name="test")


def merged(root: torch.nn.Module, lora: LoraAdapter, strength: float) -> None:
    """Add the updates to the stored weights themselves: the slow way to be equal to."""
    for path, (down, up) in lora.weights.items():
        root.get_submodule(path).weight.data += strength * up @ down


@pytest.mark.parametrize("ends", [("to_q", "to_k", "to_v", "to_out.0"), ("ff.net.0.proj", "ff.net.2")])
def test_motion_lora_is_the_merged_sum(
    unet: UNet2DConditionModel, make_motion: Maker, inputs: Inputs, ends: tuple[str, ...]
) -> None:
    with plug(unet, make_motion("v2"), 4) as plugged, torch.no_grad():
        paths = tuple(
            f"motion_modules.0.transformer_blocks.0.{part}.{end}" for part in ("attn1", "attn2") for end in ends
        )
        paths = ends if "ff.net.2" in ends else paths
        first, second = (lora_for(unet, MotionLora, paths, rank) for rank in (3, 2))
        plugged.add(first, strength=0.7)
        plugged.add(second, strength=-0.4)
        added = unet(**inputs).sample
        plugged.remove(first)
        plugged.remove(second)
        merged(unet, first, 0.7)
        merged(unet, second, -0.4)
        torch.testing.assert_close(added, unet(**inputs).sample, rtol=1e-4, atol=1e-4)


def test_strength_nothing_is_absence_and_removal_leaves_no_trace(
    unet: UNet2DConditionModel, make_motion: Maker, inputs: Inputs
) -> None:
    with plug(unet, make_motion(), 4) as plugged, torch.no_grad():
        plain, keys = unet(**inputs).sample, list(unet.state_dict())
        lora = lora_for(unet, MotionLora, ("motion_modules.0.transformer_blocks.0.attn1.to_q",))
        adapter = lora_for(unet, DomainAdapter, ("attn1.to_v", "attn2.to_k"))
        plugged.add(lora, strength=0.0)
        assert torch.equal(unet(**inputs).sample, plain)
        plugged.set_strength(lora, 1.0)
        plugged.add(adapter, strength=0.5)
        assert not torch.equal(unet(**inputs).sample, plain)
        plugged.set_strength(lora, 0.0)
        plugged.set_strength(adapter, 0.0)
        assert torch.equal(unet(**inputs).sample, plain)
        plugged.remove(lora)
        plugged.remove(adapter)
        assert torch.equal(unet(**inputs).sample, plain)
        assert list(unet.state_dict()) == keys
        assert type(unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_v) is torch.nn.Linear


def test_unplug_takes_adapters_out(unet: UNet2DConditionModel, make_motion: Maker, inputs: Inputs) -> None:
    before = unet(**inputs).sample
    with plug(unet, make_motion(), 4) as plugged:
        plugged.add(lora_for(unet, DomainAdapter, ("attn1.to_q",)))
        plugged.add(lora_for(unet, MotionLora, ("transformer_blocks.0.attn2.to_out.0",)))
    assert torch.equal(unet(**inputs).sample, before)


def test_a_lora_of_the_host_survives(unet: UNet2DConditionModel, make_motion: Maker, inputs: Inputs) -> None:
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False), "style")
    before = unet(**inputs).sample
    with plug(unet, make_motion(), 4) as plugged:
        plain = unet(**inputs).sample
        adapter = DomainAdapter(
            weights={"mid_block.attentions.0.transformer_blocks.0.attn1.to_v": (torch.randn(2, 64), torch.randn(64, 2))}
        )
        plugged.add(adapter)
        assert not torch.equal(unet(**inputs).sample, plain)
        plugged.remove(adapter)
        assert torch.equal(unet(**inputs).sample, plain)
    assert torch.equal(unet(**inputs).sample, before)


def test_a_lora_for_layers_that_are_not_there(unet: UNet2DConditionModel, make_motion: Maker) -> None:
    with plug(unet, make_motion("v2"), 4):
        made_for_v2 = lora_for(unet, MotionLora, ("motion_modules.0.transformer_blocks.0.attn1.to_q",))
    with plug(unet, make_motion("v3"), 4) as plugged:
        with pytest.raises(MismatchError, match=r"mid_block\.motion_modules.*v2 module"):
            plugged.add(made_for_v2)
        wrong = MotionLora(weights={"mid_block.resnets.0.conv1": (torch.randn(2, 8, 3, 3), torch.randn(64, 2, 1, 1))})
        with pytest.raises(MismatchError, match="64"):
            plugged.add(wrong)
        with pytest.raises(MismatchError, match="not added"):
            plugged.remove(made_for_v2)
