"""Custom Diffusion in every layout against diffusers' own loading; taken out, no trace is left."""

import copy
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import CustomDiffusionAttnProcessor
from safetensors.torch import load_file, save_file
from tests.t2i.test_lora import kohya, outputs
from torch import Tensor

from stillmotion.errors import FileError, MismatchError
from stillmotion.t2i import T2I, apply_custom_diffusion, apply_lora, load_t2i
from stillmotion.t2i.original_names import UNET_PREFIX, unet_layers

WORD = torch.linspace(-0.1, 0.1, 64)


@pytest.fixture
def model(folder: Path) -> T2I:
    return load_t2i(folder)


def trained(unet: UNet2DConditionModel, folder: Path, *, all_layers: bool = False, safe: bool = True) -> Path:
    """Write what diffusers' training script writes, with random weights, and return the folder."""
    torch.manual_seed(4)
    own = copy.deepcopy(unet)
    processors = {}
    for name in own.attn_processors:
        attention = own.get_submodule(name.removesuffix(".processor"))
        crosses = name.endswith("attn2.processor")
        processors[name] = CustomDiffusionAttnProcessor(
            train_kv=crosses,
            train_q_out=crosses and all_layers,
            hidden_size=attention.to_q.out_features,
            cross_attention_dim=attention.to_k.in_features if crosses else None,
        )
    own.set_attn_processor(processors)
    own.save_attn_procs(folder, safe_serialization=safe)
    if safe:
        save_file({"<new1>": WORD}, folder / "<new1>.safetensors")
    else:
        torch.save({"<new1>": WORD}, folder / "<new1>.bin")
    return folder


@pytest.mark.parametrize(("all_layers", "safe"), [(False, True), (True, False)])
def test_equals_diffusers_and_leaves_no_trace(
    all_layers: bool, safe: bool, pipe: StableDiffusionPipeline, model: T2I, tmp_path: Path
) -> None:
    folder = trained(pipe.unet, tmp_path, all_layers=all_layers, safe=safe)
    name = f"pytorch_custom_diffusion_weights.{'safetensors' if safe else 'bin'}"
    own = copy.deepcopy(pipe)
    if (
        safe
    ):  # diffusers 0.42 cannot read back what it writes so: the entries of the other attentions are not in the file
        own.unet.set_attn_processor(
            own.unet.attn_processors | own.unet._process_custom_diffusion(load_file(folder / name))
        )
    else:
        own.unet.load_attn_procs(folder, weight_name=name, use_safetensors=False, _pipeline=own)
    own.load_textual_inversion(str(folder), weight_name=f"<new1>.{'safetensors' if safe else 'bin'}")
    theirs, plain = outputs(own)[0], outputs(model)[0]
    keys = list(model.unet.state_dict())
    layers = {path: layer for path, layer in model.unet.named_modules() if "attn2" in path}

    custom = apply_custom_diffusion(model, folder)
    assert (theirs - plain).abs().max() > 1e-2
    assert (outputs(model)[0] - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    torch.testing.assert_close(
        model.encode_text(["a <new1> cat"]), own.encode_prompt("a <new1> cat", "cpu", 1, False)[0], rtol=0, atol=1e-6
    )
    count = (4 if all_layers else 2) * sum(path.endswith("attn2") for path in layers)
    assert model.report == [f"{name}: {count} layers applied, words '<new1>'"]
    assert sorted(path.name for path, kind in model.files.items() if path.parent == folder) == sorted(
        [name, f"<new1>.{'safetensors' if safe else 'bin'}"]
    )
    custom.strength = 0.0
    assert torch.equal(outputs(model)[0], plain)
    custom.strength = 0.5
    assert not torch.allclose(outputs(model)[0], theirs, atol=1e-4)
    custom.remove()
    custom.remove()
    assert torch.equal(outputs(model)[0], plain)
    assert all(model.unet.get_submodule(path) is layer for path, layer in layers.items())
    assert list(model.unet.state_dict()) == keys
    assert model.report == [] and all(path.parent != folder for path in model.files)


def reference_files(unet: UNet2DConditionModel, custom: dict[str, Tensor], folder: Path) -> list[Path]:
    """Write the same weights as the reference's programs do, and return the files."""
    names = unet_layers(unet)
    new = {name.replace(".processor", "").replace("_custom_diffusion", ""): value for name, value in custom.items()}
    original = {f"{UNET_PREFIX}{names[name.removesuffix('.weight')]}.weight": value for name, value in new.items()}
    factors = {}
    for name, value in new.items():
        u, s, v = torch.linalg.svd(value - unet.get_parameter(name), full_matrices=False)
        factors[name] = {"u": u * s, "v": v}
    word = {"<new1>": WORD}
    contents = {
        "delta.ckpt": {"state_dict": {**original, "embed": WORD[None]}},
        "delta.bin": {"unet": new, "modifier_token": word},
        "compressed_delta.bin": {"unet": factors, "modifier_token": word},
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, folder / name)
    return [folder / name for name in contents]


def test_the_references_layouts_mean_the_same(pipe: StableDiffusionPipeline, model: T2I, tmp_path: Path) -> None:
    folder = trained(pipe.unet, tmp_path / "diffusers")
    custom = apply_custom_diffusion(model, folder)
    expected, told = outputs(model)[0], model.encode_text(["a <new1> cat"])
    custom.remove()
    weights = load_file(folder / "pytorch_custom_diffusion_weights.safetensors")
    for file in reference_files(pipe.unet, weights, tmp_path / "reference"):
        custom = apply_custom_diffusion(model, file)
        assert (outputs(model)[0] - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert torch.equal(model.encode_text(["a <new1> cat"]), told)
        custom.remove()


@pytest.mark.parametrize("first", ["lora", "custom"])
def test_it_acts_beside_a_lora_of_the_same_layers(
    first: str, pipe: StableDiffusionPipeline, model: T2I, tmp_path: Path
) -> None:
    folder, plain = trained(pipe.unet, tmp_path / "custom"), outputs(model)[0]
    style = tmp_path / "style.safetensors"
    save_file(kohya(pipe), style)
    lora = apply_lora(model, style) if first == "lora" else None
    custom = apply_custom_diffusion(model, folder)
    lora = lora or apply_lora(model, style)
    both = outputs(model)[0]
    custom.remove()
    styled = outputs(model)[0]
    assert not torch.allclose(styled, both, atol=1e-3)
    lora.remove()
    assert torch.equal(outputs(model)[0], plain)
    expected = apply_lora(model, style)
    assert torch.equal(outputs(model)[0], styled)
    expected.remove()


def test_what_does_not_fit_is_refused_and_nothing_is_applied(model: T2I, tmp_path: Path) -> None:
    plain = outputs(model)[0]
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
    file = tmp_path / "delta.bin"
    refused = {
        "1 of its layers are not in this model, first nowhere.attn2.to_k": {
            "nowhere.attn2.to_k.weight": torch.zeros(2, 2)
        },
        "made for another kind of model: .*to_k.weight is changed by": {f"{layer}.to_k.weight": torch.zeros(32, 768)},
        "is not whole: 1 layers lack one of u and v": {f"{layer}.to_k.weight": {"u": torch.zeros(2, 2)}},
        "is no Custom Diffusion file": {"emb_params": torch.zeros(1, 64)},
        "width 3, the model's text encoder takes 64": {
            f"{layer}.to_k.weight": torch.zeros(32, 64),
            "embed": torch.zeros(1, 3),
        },
    }
    for said, content in refused.items():
        torch.save({"state_dict": content}, file)
        with pytest.raises(MismatchError, match=said):
            apply_custom_diffusion(model, file)
    with pytest.raises(FileError, match="is a folder without pytorch_custom_diffusion_weights"):
        apply_custom_diffusion(model, tmp_path.parent)
    assert torch.equal(outputs(model)[0], plain) and model.report == []
    torch.save({f"{layer}.to_k.weight": torch.ones(32, 64), "nowhere.attn2.to_k.weight": torch.zeros(2, 2)}, file)
    apply_custom_diffusion(model, file, partial=True)
    assert model.report == ["delta.bin: 1 layers applied; skipped 1 (no such layer here)"]
