"""Single files of Stable Diffusion 1.5, in the forms that people have, against the folder that they were made from."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from tests.t2i.conftest import Tensors, make_vae, original

from stillmotion.errors import FileError, MismatchError
from stillmotion.t2i import T2I, load_t2i
from stillmotion.t2i.original_names import VAE_PREFIX, vae_layers

Write = Callable[..., Path]


def same(model: T2I, pipe: StableDiffusionPipeline) -> None:
    """Assert that every weight is the pipeline's, to the bit."""
    for part in ("unet", "vae", "text_encoder"):
        ours, theirs = getattr(model, part).state_dict(), getattr(pipe, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), part


def test_a_single_file_is_the_folder_it_was_made_from(
    pipe: StableDiffusionPipeline, tensors: Tensors, write: Write
) -> None:
    path = write(tensors)
    model = load_t2i(path)
    same(model, pipe)
    for name in ("block_out_channels", "layers_per_block", "cross_attention_dim", "up_block_types", "sample_size"):
        ours, theirs = model.unet.config[name], pipe.unet.config[name]
        assert (list(ours) if isinstance(ours, list) else ours) == (
            list(theirs) if isinstance(theirs, tuple) else theirs
        )
    assert model.prediction_type == "epsilon"
    assert model.scheduler_config["beta_schedule"] == "scaled_linear"
    assert model.files == {path: "single file"}
    unet, text, vae = (len(part.state_dict()) for part in (pipe.unet, pipe.text_encoder, pipe.vae))
    counts = f"(unet {unet}, text_encoder {text}, vae {vae})"
    assert model.report == [f"tiny.safetensors: {len(tensors)} tensors applied {counts}"]
    assert not any(parameter.requires_grad for parameter in model.unet.parameters())
    features = model.encode_text(["a photo of a cat", ""])
    torch.testing.assert_close(
        features, pipe.encode_prompt(["a photo of a cat", ""], "cpu", 1, False)[0], rtol=0, atol=0
    )


def test_names_are_those_of_diffusers_converter(
    pipe: StableDiffusionPipeline, folder: Path, tensors: Tensors, write: Write
) -> None:
    """The table of names is ours; diffusers' converter, which reads the real files, agrees with it."""
    path = str(write(tensors))
    for kind, part in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae")):
        theirs = kind.from_single_file(path, config=str(folder), subfolder=part, local_files_only=True).state_dict()
        ours = getattr(pipe, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_nested_checkpoint_with_training_state(pipe: StableDiffusionPipeline, tensors: Tensors, write: Write) -> None:
    extra = {
        "model_ema.diffusion_modelinput_blocks00weight": torch.zeros(1),
        "alphas_cumprod": torch.zeros(1000),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "safety_checker.concept_embeds": torch.zeros(2),
    }
    model = load_t2i(write(tensors | extra, "tiny.ckpt", wrap="state_dict", epoch=3, global_step=7))
    same(model, pipe)
    for said in ("1 (averaged weights)", "1 (training state)", "1 (the safety checker)"):
        assert said in model.report[0]


def test_half_precision_and_text_encoder_without_its_outer_name(
    pipe: StableDiffusionPipeline, tensors: Tensors, write: Write
) -> None:
    halved = {name.replace("transformer.text_model.", "transformer."): value.half() for name, value in tensors.items()}
    model = load_t2i(write(halved), dtype=torch.float32)
    assert model.unet.dtype is torch.float32
    expected = pipe.unet.conv_in.weight.half().float()
    assert torch.equal(model.unet.conv_in.weight, expected)


def test_without_a_vae_one_must_be_given(
    pipe: StableDiffusionPipeline, folder: Path, tensors: Tensors, write: Write
) -> None:
    path = write({name: value for name, value in tensors.items() if not name.startswith("first_stage_model.")})
    with pytest.raises(MismatchError, match="has no VAE; give one as vae"):
        load_t2i(path)
    same(load_t2i(path, vae=folder / "vae"), pipe)


def _old(name: str) -> str:
    for now, then in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        name = name.replace(f".{now}.", f".{then}.")
    return name


@pytest.mark.parametrize("form", ["original", "original with prefix", "diffusers", "diffusers of old", "checkpoint"])
def test_another_vae_in_any_form(form: str, folder: Path, tensors: Tensors, write: Write) -> None:
    torch.manual_seed(1)
    other = make_vae()
    named = original(other.state_dict(), vae_layers(other), VAE_PREFIX)
    bare = {name.removeprefix(VAE_PREFIX): value for name, value in named.items()}
    path = {
        "original": lambda: write(bare | {"loss.logvar": torch.zeros(1)}, "vae.ckpt", wrap="state_dict"),
        "original with prefix": lambda: write(named, "vae.pt"),
        "diffusers": lambda: write(other.state_dict(), "vae.safetensors"),
        "diffusers of old": lambda: write({_old(name): v for name, v in other.state_dict().items()}, "vae.bin"),
        "checkpoint": lambda: write(tensors | named, "other.safetensors"),
    }[form]()
    model = load_t2i(folder, vae=path)
    state = model.vae.state_dict()
    assert all(torch.equal(state[name], value) for name, value in other.state_dict().items())
    assert model.files[path] == "vae"
    assert f"{path.name} stands in" in model.report[-1]


def test_a_config_beside_the_file_says_v_prediction(tensors: Tensors, write: Write) -> None:
    path = write(tensors)
    beside = path.with_suffix(".yaml")
    beside.write_text("model:\n  params:\n    parameterization: v\n")
    assert load_t2i(path).prediction_type == "v_prediction"
    beside.write_text("model: [")
    with pytest.raises(FileError, match="the config beside"):
        load_t2i(path)


def test_an_incomplete_or_overfull_file_is_refused(tensors: Tensors, write: Write) -> None:
    name = "model.diffusion_model.output_blocks.3.0.in_layers.2.weight"
    with pytest.raises(MismatchError, match=r"the UNet lacks 1 weights, first output_blocks.3.0.in_layers.2.weight"):
        load_t2i(write({key: value for key, value in tensors.items() if key != name}))
    with pytest.raises(MismatchError, match=r"fit nowhere: 1 weights, first input_blocks.1.1.adapter.weight"):
        load_t2i(write(tensors | {"model.diffusion_model.input_blocks.1.1.adapter.weight": torch.zeros(1)}))
    with pytest.raises(MismatchError, match=r"others in size: 1 weights, first output_blocks.3.0.in_layers.2.weight"):
        load_t2i(write(tensors | {name: torch.zeros(7, 7, 3, 3)}))


def test_an_inpainting_model_is_refused(tensors: Tensors, write: Write) -> None:
    name = "model.diffusion_model.input_blocks.0.0.weight"
    wide = torch.zeros(32, 9, 3, 3)
    with pytest.raises(MismatchError, match=r"takes 9 channels, the VAE gives 4: .* inpainting"):
        load_t2i(write(tensors | {name: wide}))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("conditioner.embedders.0.model.weight", "Stable Diffusion XL refiner checkpoint"),
        ("cond_stage_model.model.ln_final.weight", "Stable Diffusion 2 checkpoint"),
        ("model.diffusion_model.joint_blocks.0.weight", "Stable Diffusion 3 checkpoint"),
        ("down_blocks.0.motion_modules.0.temporal_transformer.norm.weight", "a motion module"),
        ("lora_unet_mid_block_attentions_0_proj_in.lora_up.weight", "a LoRA; give it as one of loras"),
        ("first_stage_model.encoder.conv_in.weight", "a VAE; give it as vae"),
        ("encoder.down_blocks.0.resnets.0.conv1.weight", "a VAE; give it as vae"),
        ("model.diffusion_model.input_blocks.0.0.weight", "a UNet without a text encoder"),
        ("string_to_param.*", "a textual inversion"),
        ("weird.weight", "its 1 tensors begin with weird.weight"),
    ],
)
def test_what_is_no_such_model_is_named(name: str, said: str, write: Write) -> None:
    with pytest.raises((FileError, MismatchError), match=said):
        load_t2i(write({name: torch.zeros(1)}))


class Code:
    """A pickle of it would run code when read."""

    ran = False

    def __reduce__(self) -> tuple:
        return setattr, (Code, "ran", True)


def test_bad_files_are_refused_and_no_code_runs(tmp_path: Path, tensors: Tensors, write: Write) -> None:
    bad = tmp_path / "bad.ckpt"
    torch.save({"state_dict": {"x": Code()}}, bad)
    with pytest.raises(FileError, match="wants to run code"):
        load_t2i(bad)
    assert not Code.ran
    bad.write_text("<!DOCTYPE html><html>")
    with pytest.raises(FileError, match=r"bad\.ckpt was refused"):
        load_t2i(bad)
    cut = write(tensors)
    cut.write_bytes(cut.read_bytes()[:5000])
    with pytest.raises(FileError, match="is damaged"):
        load_t2i(cut)
    with pytest.raises(FileError, match="does not exist"):
        load_t2i(tmp_path / "missing.safetensors")
