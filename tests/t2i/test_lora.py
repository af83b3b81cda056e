"""LoRAs in every dialect against diffusers' own loading of the same file; taken out, no trace is left."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from tests.t2i.conftest import Tensors
from torch import Tensor, nn

from stillmotion.errors import FileError, MismatchError
from stillmotion.motion import DomainAdapter, MotionModule, plug
from stillmotion.t2i import T2I, apply_lora, load_t2i
from stillmotion.t2i.original_names import unet_layers

Write = Callable[..., Path]
UNET_ENDS = ("to_q", "to_v", "to_out.0", "ff.net.0.proj", "proj_in", "conv1", "downsamplers.0.conv", "time_emb_proj")
TEXT_ENDS = ("q_proj", "out_proj", "fc1")
RANK = 4


@pytest.fixture
def model(folder: Path) -> T2I:
    return load_t2i(folder)


def factors(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Return random (down, up) for a layer, in kohya's shapes."""
    if isinstance(layer, nn.Conv2d):
        down = torch.randn(RANK, layer.in_channels, *layer.kernel_size)
        return 0.1 * down, 0.1 * torch.randn(layer.out_channels, RANK, 1, 1)
    return 0.1 * torch.randn(RANK, layer.in_features), 0.1 * torch.randn(layer.out_features, RANK)


def kohya(pipe: StableDiffusionPipeline, name: Callable[[str], str] = str, alpha: float | None = 2.0) -> Tensors:
    """Return a LoRA of both parts in kohya's dialect; `name` says how a UNet layer is called there."""
    torch.manual_seed(3)
    tensors = {}
    text = [(f"te_text_model.{p.removeprefix('text_model.')}", m) for p, m in pipe.text_encoder.named_modules()]
    unet = [(f"unet_{name(path)}", m) for path, m in pipe.unet.named_modules() if path.endswith(UNET_ENDS)]
    for path, layer in [*unet, *(pair for pair in text if pair[0].endswith(TEXT_ENDS))]:
        stem = f"lora_{path}".replace(".", "_")
        tensors[f"{stem}.lora_down.weight"], tensors[f"{stem}.lora_up.weight"] = factors(layer)
        if alpha is not None:
            tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    return tensors


def outputs(parts: T2I | StableDiffusionPipeline) -> tuple[Tensor, Tensor]:
    """Return what the UNet and the text encoder compute."""
    ids = torch.tensor([[49406, 320, 1125, 49407]])
    with torch.no_grad():
        text = parts.text_encoder(ids).last_hidden_state
        sample = torch.linspace(-1, 1, 4 * 8 * 8).view(1, 4, 8, 8)
        return parts.unet(sample, 500, encoder_hidden_states=text).sample, text


def diffusers_outputs(pipe: StableDiffusionPipeline, path: Path, strength: float) -> tuple[Tensor, Tensor]:
    """Return the outputs with the file loaded by diffusers."""
    own = copy.deepcopy(pipe)
    own.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="style")
    own.set_adapters("style", strength)
    return outputs(own)


def assert_close(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor], plain: tuple[Tensor, Tensor]) -> None:
    for mine, their, without in zip(ours, theirs, plain, strict=True):
        assert (their - without).abs().max() > 1e-2  # the LoRA does something
        assert (mine - their).abs().max() <= 1e-5 * their.abs().max()


@pytest.mark.parametrize("alpha", [2.0, None])
def test_kohya_equals_diffusers_and_leaves_no_trace(
    alpha: float | None, pipe: StableDiffusionPipeline, model: T2I, write: Write
) -> None:
    path = write(kohya(pipe, alpha=alpha), "style.safetensors")
    plain, keys = outputs(model), list(model.unet.state_dict())
    lora = apply_lora(model, path, 0.7)
    assert_close(outputs(model), diffusers_outputs(pipe, path, 0.7), plain)
    unet, text = layer_counts(pipe)
    assert model.report == [f"style.safetensors: {unet + text} updates applied (unet {unet}, text_encoder {text})"]
    assert model.files[path] == "lora"
    lora.strength = 0.0
    assert all(torch.equal(*pair) for pair in zip(outputs(model), plain, strict=True))
    lora.strength = 0.7
    lora.remove()
    lora.remove()
    assert all(torch.equal(*pair) for pair in zip(outputs(model), plain, strict=True))
    assert list(model.unet.state_dict()) == keys
    assert model.report == []
    assert path not in model.files


def layer_counts(pipe: StableDiffusionPipeline) -> tuple[int, ...]:
    """Return how many layers of each part the LoRA updates."""
    parts = ((pipe.unet, UNET_ENDS), (pipe.text_encoder, TEXT_ENDS))
    return tuple(sum(path.endswith(ends) for path, _ in part.named_modules()) for part, ends in parts)


def test_original_block_names_mean_the_same(pipe: StableDiffusionPipeline, model: T2I, write: Write) -> None:
    table = unet_layers(pipe.unet)
    lora = apply_lora(model, write(kohya(pipe), "paths.safetensors"))
    expected = outputs(model)
    lora.remove()
    apply_lora(model, write(kohya(pipe, name=table.__getitem__), "blocks.safetensors"))
    assert all(torch.equal(*pair) for pair in zip(outputs(model), expected, strict=True))


@pytest.mark.parametrize("dialect", ["peft", "diffusers"])
def test_diffusers_files_with_their_metadata(
    dialect: str, pipe: StableDiffusionPipeline, model: T2I, tmp_path: Path
) -> None:
    own = copy.deepcopy(pipe)
    torch.manual_seed(5)
    config = LoraConfig(r=RANK, lora_alpha=10, target_modules=["to_q", "to_k", "conv1"], init_lora_weights=False)
    text = LoraConfig(r=2, lora_alpha=1, target_modules=["q_proj", "fc2"], init_lora_weights=False)
    own.unet.add_adapter(config)
    own.text_encoder.add_adapter(text)
    layers = {"unet": get_peft_model_state_dict(own.unet), "text_encoder": get_peft_model_state_dict(own.text_encoder)}
    if dialect == "diffusers":
        layers["text_encoder"] = convert_state_dict_to_diffusers(layers["text_encoder"])
    kept = {"unet_lora_adapter_metadata": config.to_dict(), "text_encoder_lora_adapter_metadata": text.to_dict()}
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, layers["unet"], layers["text_encoder"], **(kept if dialect == "peft" else {})
    )
    plain = outputs(model)
    apply_lora(model, tmp_path, -0.6)
    file = tmp_path / "pytorch_lora_weights.safetensors"
    assert_close(outputs(model), diffusers_outputs(pipe, file, -0.6), plain)


def test_processor_names_of_old(pipe: StableDiffusionPipeline, model: T2I, write: Write) -> None:
    torch.manual_seed(6)
    tensors, now = {}, {}
    for path, layer in pipe.unet.named_modules():
        if path.endswith(("to_q", "to_out.0")):
            down, up = factors(layer)
            stem = path.removesuffix(".0").replace(".to_", ".processor.to_")
            tensors |= {f"{stem}_lora.down.weight": down, f"{stem}_lora.up.weight": up}
            now |= {f"unet.{path}.lora_A.weight": down, f"unet.{path}.lora_B.weight": up}
    old = apply_lora(model, write(tensors, "old.bin"))
    expected = outputs(model)
    old.remove()
    apply_lora(model, write(now, "new.safetensors"))
    assert all(torch.equal(*pair) for pair in zip(outputs(model), expected, strict=True))


def test_several_add_up_and_leave_in_any_order(pipe: StableDiffusionPipeline, model: T2I, write: Write) -> None:
    path = write(kohya(pipe), "style.safetensors")
    plain = outputs(model)
    whole = apply_lora(model, path, 1.0)
    expected = outputs(model)
    whole.remove()
    first, second = apply_lora(model, path, 0.25), apply_lora(model, path, 0.75)
    for ours, theirs in zip(outputs(model), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    first.remove()
    second.remove()
    assert all(torch.equal(*pair) for pair in zip(outputs(model), plain, strict=True))


def test_it_acts_beside_motion_and_a_domain_adapter(pipe: StableDiffusionPipeline, model: T2I, write: Write) -> None:
    torch.manual_seed(7)
    plain = outputs(model)
    motion = MotionModule.from_variant("v3", block_out_channels=(32, 64), layers_per_block=2)
    paths = [path for path, _ in model.unet.named_modules() if path.endswith("attn1.to_q")]
    weights = {path: factors(model.unet.get_submodule(path)) for path in paths}  # layers that the LoRA updates too
    adapter = DomainAdapter(weights=weights)
    style = apply_lora(model, write(kohya(pipe)), 0.5)
    styled = outputs(model)
    with plug(model.unet, motion, 1) as plugged:
        assert all(torch.equal(*pair) for pair in zip(outputs(model), styled, strict=True))  # untrained motion is still
        plugged.add(adapter, strength=0.5)
        with_both = outputs(model)
        assert not torch.allclose(with_both[0], styled[0], atol=1e-3)
        style.strength = 0.0
        assert not torch.allclose(outputs(model)[0], with_both[0], atol=1e-3)
        style.strength = 0.5
        plugged.remove(adapter)
        assert all(torch.equal(*pair) for pair in zip(outputs(model), styled, strict=True))
    style.remove()
    assert all(torch.equal(*pair) for pair in zip(outputs(model), plain, strict=True))


def test_what_does_not_fit_is_refused_and_nothing_is_applied(
    pipe: StableDiffusionPipeline, model: T2I, write: Write, tmp_path: Path
) -> None:
    plain, tensors = outputs(model), kohya(pipe)
    stem = "lora_unet_mid_block_attentions_0_proj_in"
    name = f"{stem}.lora_up.weight"
    strange = {f"lora_unet_nowhere.lora_{half}.weight": torch.zeros(4, 4) for half in ("up", "down")}
    wide = {f"lora_unet_x_attn2_to_k.lora_{half}.weight": torch.zeros(4, 2048) for half in ("up", "down")}
    refused = {
        "have no layer in this model, first nowhere; it was made for another": tensors | strange,
        "it is a LoRA of Stable Diffusion XL": tensors | wide,
        "lack a half, first mid_block": {key: value for key, value in tensors.items() if key != name},
        "but the layer has": tensors | {name: torch.zeros(7, RANK, 1, 1)},
        "a tensor of a LoRA that is not known": tensors | {f"{stem}.lora_left.weight": torch.zeros(1)},
        "is a DoRA": tensors | {f"{stem}.dora_scale": torch.zeros(1)},
        "is an OFT": {f"{stem}.oft_blocks": torch.zeros(1)},
        "1 of 1 updates lack a half, first mid_block_attentions_0_proj_in": {f"{stem}.hada_w1_a": torch.zeros(1)},
        "2 layers by another size": {
            f"lora_unet_{layer}.diff": torch.zeros(3) for layer in ("mid_block_attentions_0_proj_in", "conv_in")
        },
        "updates a motion module": {"down_blocks.0.motion_modules.0.attn1.to_q_lora.up.weight": torch.zeros(1)},
        "LoRA of Stable Diffusion XL; it does not fit": {
            f"lora_te2_text_model.lora_{half}.weight": torch.zeros(1, 1) for half in ("up", "down")
        },
        "is no LoRA; its 1 tensors": {"model.diffusion_model.out.weight": torch.zeros(1)},
    }
    for said, content in refused.items():
        with pytest.raises(MismatchError, match=said):
            apply_lora(model, write(content))
    with pytest.raises(FileError, match="without pytorch_lora_weights"):
        apply_lora(model, tmp_path)
    assert all(torch.equal(*pair) for pair in zip(outputs(model), plain, strict=True))
    assert model.report == []


def test_a_partial_match_is_allowed_by_name_and_said(pipe: StableDiffusionPipeline, model: T2I, write: Write) -> None:
    tensors, plain = kohya(pipe), outputs(model)
    stem = "lora_unet_mid_block_attentions_0_proj_in"
    strange = {f"lora_unet_nowhere.lora_{half}.weight": torch.zeros(4, 4) for half in ("up", "down")}
    strange |= {f"{stem}.lora_up.weight": torch.zeros(7, RANK, 1, 1), f"{stem}.lora_left.weight": torch.zeros(1)}
    rest = {name: value for name, value in tensors.items() if not name.startswith(f"{stem}.")}
    expected = apply_lora(model, write(rest, "rest.safetensors"), 0.7)
    theirs = outputs(model)
    expected.remove()
    apply_lora(model, write(tensors | strange, "part.safetensors"), 0.7, partial=True)
    assert all(torch.equal(*pair) for pair in zip(outputs(model), theirs, strict=True))
    assert not torch.equal(theirs[0], plain[0])
    assert model.report[0].endswith(
        "; skipped 1 (not known); skipped 1 (no such layer here); skipped 1 (another size than the layer's)"
    )
    with pytest.raises(MismatchError, match="none of its 1 updates fits this model"):
        apply_lora(model, write({name: value for name, value in strange.items() if "nowhere" in name}), partial=True)


def test_what_is_beside_the_updates_is_reported(pipe: StableDiffusionPipeline, model: T2I, write: Write) -> None:
    tensors = kohya(pipe) | {"bundle_emb.word.string_to_param": torch.zeros(2, 64)}
    apply_lora(model, write(tensors))
    assert model.report[0].endswith("; skipped 1 (none of a LoRA's)")
