"""LoHa, LoKr and their kin in LyCORIS' files, against peft's own layers; taken out, no trace is left."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoHaConfig, LoKrConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from tests.t2i.conftest import Tensors
from tests.t2i.test_lora import kohya, outputs
from torch import nn

from stillmotion.t2i import T2I, apply_lora, load_t2i

Write = Callable[..., Path]
ENDS = ["attn1.to_q", "attn2.to_k", "ff.net.0.proj", "conv1", "conv_shortcut", "proj_in"]


@pytest.fixture
def model(folder: Path) -> T2I:
    return load_t2i(folder)


def peft_model(pipe: StableDiffusionPipeline, config: Any) -> StableDiffusionPipeline:
    """Return the model with random updates of peft's in UNet and text encoder."""
    torch.manual_seed(8)
    own = copy.deepcopy(pipe)
    inject_adapter_in_model(config, own.unet, "own")
    inject_adapter_in_model(config, own.text_encoder, "own")
    return own


def as_file(pipe: StableDiffusionPipeline, alpha: float) -> Tensors:
    """Return peft's updates under the names of a LyCORIS file."""
    tensors = {}
    parts = (("unet", pipe.unet, ""), ("te", pipe.text_encoder, "text_model."))
    layers = [
        (f"lora_{part}_{before}{path.removeprefix(before)}".replace(".", "_"), layer)
        for part, root, before in parts
        for path, layer in root.named_modules()
        if isinstance(layer, BaseTunerLayer)
    ]
    for stem, layer in layers:
        for name in layer.adapter_layer_names:
            if "own" in getattr(layer, name):
                tensors[f"{stem}.{name}"] = getattr(layer, name)["own"].detach().clone()
        tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    return tensors


SHARED = {"r": 4, "alpha": 2, "target_modules": [*ENDS, "q_proj", "fc1"], "init_weights": False}
CONFIGS = {
    "loha": LoHaConfig(**SHARED),
    "loha in Tucker form": LoHaConfig(**SHARED, use_effective_conv2d=True),
    "lokr": LoKrConfig(**SHARED),
    "lokr in Tucker form": LoKrConfig(**SHARED, use_effective_conv2d=True, decompose_both=True, decompose_factor=8),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_equals_peft_and_leaves_no_trace(kind: str, pipe: StableDiffusionPipeline, model: T2I, write: Write) -> None:
    own = peft_model(pipe, CONFIGS[kind])
    tensors = as_file(own, alpha=2.0)
    if "lokr" in kind:  # of two whole factors LyCORIS stores an alpha that counts for nothing
        for stem in {name.partition(".")[0] for name in tensors if name.endswith(("lokr_w1", "lokr_w2"))}:
            if {f"{stem}.lokr_w1", f"{stem}.lokr_w2"} <= tensors.keys():
                tensors[f"{stem}.lokr_w1"] = tensors[f"{stem}.lokr_w1"] / 2
    plain, theirs = outputs(model), outputs(own)
    before = dict(model.unet.named_modules())
    lora = apply_lora(model, write(tensors))
    for mine, their, without in zip(outputs(model), theirs, plain, strict=True):
        assert (their - without).abs().max() > 1e-2
        assert (mine - their).abs().max() <= 1e-5 * their.abs().max()
    assert model.report[0].startswith(f"tiny.safetensors: {len({name.partition('.')[0] for name in tensors})} updates")
    assert "skipped" not in model.report[0]
    lora.strength = 0.0
    assert all(torch.equal(*pair) for pair in zip(outputs(model), plain, strict=True))
    lora.strength = 0.3
    lora.remove()
    assert all(torch.equal(*pair) for pair in zip(outputs(model), plain, strict=True))
    assert dict(model.unet.named_modules()) == before
    assert model.report == []


def delta(model: T2I, path: str, tensors: Tensors, write: Write) -> torch.Tensor:
    """Return what a file adds to one layer's weight."""
    layer = model.unet.get_submodule(path)
    lora = apply_lora(model, write(tensors), 0.5)
    found = model.unet.get_submodule(path).weight - layer.weight
    lora.remove()
    assert model.unet.get_submodule(path) is layer
    return found


def test_tucker_form_and_whole_differences(model: T2I, write: Write) -> None:
    path = "down_blocks.0.resnets.0.conv1"
    weight, stem = model.unet.get_submodule(path).weight, "lora_unet_down_blocks_0_resnets_0_conv1"
    up, mid, down = torch.randn(32, 4, 1, 1), torch.randn(4, 4, 3, 3), torch.randn(4, 32, 1, 1)
    named = {"lora_up.weight": up, "lora_mid.weight": mid, "lora_down.weight": down, "alpha": torch.tensor(2.0)}
    # Three convolutions, one after another, are the one that the form stands for.
    picture = torch.randn(1, 32, 5, 5)
    expected = picture
    for part in (down, mid, up):
        expected = nn.functional.conv2d(expected, part, padding=part.shape[-1] // 2)
    found = delta(model, path, {f"{stem}.{name}": value for name, value in named.items()}, write)
    theirs = 0.5 * 2 / 4 * expected
    ours = nn.functional.conv2d(picture, found, padding=1)
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    whole = torch.randn_like(weight)
    tensors = {f"{stem}.diff": whole, f"{stem}.diff_b": torch.ones(32)}
    torch.testing.assert_close(delta(model, path, tensors, write), 0.5 * whole)


@pytest.mark.parametrize("last", [0, 1, 2])
def test_several_of_several_kinds_leave_in_any_order(
    last: int, pipe: StableDiffusionPipeline, model: T2I, write: Write
) -> None:
    loha = write(as_file(peft_model(pipe, CONFIGS["loha"]), 2.0), "loha.safetensors")
    lokr = write(as_file(peft_model(pipe, CONFIGS["lokr"]), 2.0), "lokr.safetensors")
    lora = write(kohya(pipe), "lora.safetensors")
    plain = outputs(model)
    applied = [apply_lora(model, file, 0.4) for file in (loha, lora, lokr)]
    kept = applied.pop(last)
    for other in applied:
        other.remove()
    alone = outputs(model)
    kept.remove()
    assert all(torch.equal(*pair) for pair in zip(outputs(model), plain, strict=True))
    apply_lora(model, kept.path, 0.4)
    assert all(torch.equal(*pair) for pair in zip(outputs(model), alone, strict=True))
