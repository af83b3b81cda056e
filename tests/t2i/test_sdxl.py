"""Stable Diffusion XL as an image model: folder and single file are diffusers' own pipeline, features and LoRAs included."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionXLPipeline, T2IAdapter, UNet2DConditionModel
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
from safetensors.torch import save_file
from tests.t2i.control_models import shaken
from tests.t2i.sdxl_models import SIDE, WIDTHS, make_pipe, single_file
from transformers import CLIPTextModelWithProjection

from stillmotion.errors import MismatchError
from stillmotion.sampling import Denoiser
from stillmotion.t2i import T2I, apply_embedding, apply_lora, load_t2i
from stillmotion.t2i.controls import load_control

Write = Callable[..., Path]
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")


@pytest.fixture(scope="module")
def xl() -> StableDiffusionXLPipeline:
    """Diffusers' pipeline; tests leave it as it is."""
    return make_pipe()


@pytest.fixture(scope="module")
def xl_folder(xl: StableDiffusionXLPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("xl") / "tiny-xl"
    xl.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def xl_file(xl: StableDiffusionXLPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("xl-file") / "tiny-xl.safetensors"
    save_file(single_file(xl), path)
    return path


@pytest.fixture(scope="module")
def model(xl_folder: Path) -> T2I:
    """The same in our hands; tests leave it as it is, too."""
    return load_t2i(xl_folder)


def same(model: T2I, pipe: StableDiffusionXLPipeline) -> None:
    for part in PARTS:
        ours, theirs = getattr(model, part).state_dict(), getattr(pipe, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), part


def test_a_single_file_is_the_folder_it_was_made_from(
    xl: StableDiffusionXLPipeline, model: T2I, xl_file: Path, tmp_path: Path
) -> None:
    torch.save({"state_dict": single_file(xl)}, tmp_path / "tiny.ckpt")
    folder, file, pickled = model, load_t2i(xl_file), load_t2i(tmp_path / "tiny.ckpt", vae=xl_file)
    for loaded in (folder, file, pickled):
        same(loaded, xl)
        assert loaded.is_xl
    names = ("attention_head_dim", "transformer_layers_per_block", "cross_attention_dim", "addition_embed_type")
    for name in (*names, "projection_class_embeddings_input_dim", "up_block_types", "use_linear_projection"):
        ours, theirs = file.unet.config[name], xl.unet.config[name]
        assert (list(ours) if isinstance(ours, list | tuple) else ours) == (
            list(theirs) if isinstance(theirs, list | tuple) else theirs
        )
    assert file.vae.config.scaling_factor == xl.vae.config.scaling_factor == 0.13025
    assert {Path(path).parent.name for path in folder.files} == set(PARTS)
    assert (file.unet.config.sample_size, pickled.vae.config.scaling_factor) == (128, 0.13025)
    first, second = file.text(["a red ball!"]), folder.text(["a red ball!"])
    assert torch.equal(first.tokens, second.tokens) and torch.equal(first.pooled, second.pooled)
    assert (first.sizes, second.sizes) == ((256, 256, 0, 0, 256, 256), (32, 32, 0, 0, 32, 32))


def test_names_are_those_of_diffusers_converter(xl: StableDiffusionXLPipeline, xl_folder: Path, xl_file: Path) -> None:
    """What reads the real files agrees with our table of names, and with how OpenCLIP's weights are laid out."""
    unet = UNet2DConditionModel.from_single_file(
        str(xl_file), config=str(xl_folder), subfolder="unet", local_files_only=True
    )
    ours = xl.unet.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in unet.state_dict().items())
    encoder = create_diffusers_clip_model_from_ldm(
        CLIPTextModelWithProjection,
        single_file(xl),
        subfolder="text_encoder_2",
        config=str(xl_folder),
        local_files_only=True,
    )
    theirs = xl.text_encoder_2.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_features_are_the_pipelines(
    xl: StableDiffusionXLPipeline, model: T2I, clip_skip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    skipped = None if clip_skip == 1 else clip_skip - 1
    told, _, whole, _ = xl.encode_prompt("a red ball", device="cpu", clip_skip=skipped)
    _, empty, _, whole_empty = xl.encode_prompt("a red ball", device="cpu", clip_skip=skipped)
    text = model.text(["a red ball", ""], clip_skip=clip_skip, height=16, width=24)
    torch.testing.assert_close(text.tokens, torch.cat([told, empty]))
    torch.testing.assert_close(text.pooled, torch.cat([whole, whole_empty]))
    assert text.sizes == (16, 24, 0, 0, 16, 24) and not text.tokens[1].any()
    monkeypatch.setattr(model, "zeros_for_empty_text", False)
    _, read, _, whole_read = xl.encode_prompt("a red ball", device="cpu", negative_prompt="", clip_skip=skipped)
    text = model.text(["a red ball", ""], clip_skip=clip_skip)
    torch.testing.assert_close(text.pooled[1:], whole_read)
    if clip_skip == 1:  # the pipeline reads the negative prompt at the same layer whatever is skipped
        torch.testing.assert_close(text.tokens[1:], read)


def test_weights_and_length_act_in_both_encoders(model: T2I) -> None:
    plain, strong = model.text(["a red ball"]), model.text(["a (red:1.5) ball"])
    changed = (plain.tokens - strong.tokens).abs().amax((0, 1))
    assert changed[:32].max() > 0 and changed[32:].max() > 0
    assert torch.equal(plain.pooled, strong.pooled)
    assert model.text([", ".join(["a photo"] * 40), ""]).tokens.shape == (2, 154, 96)


UNET_LAYER = "lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_k"
KOHYA = {
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj": "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
    "text_encoder_2.text_model.encoder.layers.1.self_attn.out_proj": "lora_te2_text_model_encoder_layers_1_self_attn_out_proj",
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": UNET_LAYER,
}
SIZES = {"q_proj": (32, 32), "out_proj": (64, 64), "to_k": (96, 64)}


def test_a_lora_acts_on_both_encoders_as_in_the_pipeline(model: T2I, write: Write) -> None:
    draw = torch.Generator().manual_seed(1)
    named, kohya = {}, {}
    for name, other in KOHYA.items():
        wide, out = SIZES[name.rpartition(".")[2]]
        down, up = torch.randn(2, wide, generator=draw), torch.randn(out, 2, generator=draw)
        own = "lora" if name.startswith("unet") else "lora_linear_layer"
        named |= {f"{name}.{own}.down.weight": down, f"{name}.{own}.up.weight": up}
        kohya |= {f"{other}.lora_down.weight": down.clone(), f"{other}.lora_up.weight": up.clone()}
    pipe, plain = make_pipe(), model.text(["a red ball"])
    pipe.load_lora_weights(str(write(named, "named.safetensors").parent), weight_name="named.safetensors")
    theirs, _, whole, _ = pipe.encode_prompt("a red ball", device="cpu")
    for path in (write(named, "named.safetensors"), write(kohya, "kohya.safetensors")):
        lora = apply_lora(model, path)
        assert "3 updates applied (unet 1, text_encoder_2 1, text_encoder 1)" in model.report[-1]
        styled = model.text(["a red ball"])
        torch.testing.assert_close(styled.tokens, theirs)
        torch.testing.assert_close(styled.pooled, whole)
        assert not torch.allclose(styled.tokens, plain.tokens, rtol=0.01)
        lora.remove()
        assert torch.equal(model.text(["a red ball"]).tokens, plain.tokens)


def test_a_textual_inversion_of_both_encoders(model: T2I, write: Write) -> None:
    plain = model.text(["a red ball, inkwash", "a red ball"])
    vectors = {"clip_l": torch.randn(2, 32), "clip_g": torch.randn(2, 64)}
    word = apply_embedding(model, write(vectors, "inkwash.safetensors"))
    taught = model.text(["a red ball, inkwash", "a red ball"])
    changed = (plain.tokens - taught.tokens).abs()
    assert changed[0, :, :32].max() > 0 and changed[0, :, 32:].max() > 0 and not changed[1].any()
    assert not torch.allclose(taught.pooled[0], plain.pooled[0]) and torch.equal(taught.pooled[1], plain.pooled[1])
    word.remove()
    assert torch.equal(model.text(["a red ball, inkwash", "a red ball"]).pooled, plain.pooled)
    with pytest.raises(MismatchError, match="no textual inversion of Stable Diffusion XL"):
        apply_embedding(model, write({"emb_params": torch.randn(2, 32)}, "other.safetensors"))


def test_a_controlnet_is_told_sizes_and_whole_texts_too(model: T2I, tmp_path: Path) -> None:
    net = ControlNetModel.from_unet(model.unet, conditioning_channels=3).eval()
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    net.save_pretrained(tmp_path / "net")
    pictures, latents = torch.rand(1, 3, 64, 64), torch.randn(1, 4, 1, 8, 8)  # a ControlNet sees 8 pixels in a latent
    text = model.text(["a red ball"])
    told = text.arguments()
    with torch.no_grad():
        control = load_control(tmp_path / "net", t2i=model).on(pictures)
        ours = Denoiser(model.unet, [control])(latents, 321, text)
        down, mid = net(latents[:, :, 0], 321, text.tokens, pictures, return_dict=False, **told)
        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        theirs = model.unet(latents[:, :, 0], 321, text.tokens, **told, **residuals).sample
        without = model.unet(latents[:, :, 0], 321, text.tokens, **told).sample
    torch.testing.assert_close(ours[:, :, 0], theirs)
    assert not torch.allclose(theirs, without, rtol=0.01)


def test_a_t2i_adapter_adds_to_every_block_and_the_middle(model: T2I, tmp_path: Path) -> None:
    kind = {"adapter_type": "full_adapter_xl", "channels": [*WIDTHS, WIDTHS[-1]], "num_res_blocks": 2}
    net = shaken(T2IAdapter(in_channels=3, downscale_factor=4, **kind), 2)
    net.save_pretrained(tmp_path / "net")
    pictures, latents = torch.rand(1, 3, SIDE, SIDE), torch.randn(1, 4, 1, SIDE // 2, SIDE // 2)
    text = model.text(["a red ball"])
    told = text.arguments()
    with torch.no_grad():
        adapter = load_control(tmp_path / "net", t2i=model)
        ours = Denoiser(model.unet, [adapter.on(pictures, strength=0.6)])(latents, 321, text)
        within = [0.6 * each for each in net(pictures)]
        assert len(within) == len(WIDTHS) + 1
        call = {"down_intrablock_additional_residuals": list(within), **told}
        theirs = model.unet(latents[:, :, 0], 321, text.tokens, **call).sample
        call["down_intrablock_additional_residuals"] = list(within[:-1])
        without_the_middle = model.unet(latents[:, :, 0], 321, text.tokens, **call).sample
    torch.testing.assert_close(ours[:, :, 0], theirs)
    assert not torch.allclose(theirs, without_the_middle, rtol=0.01)
    assert str(adapter) == "t2i_adapter (sdxl) net"


def test_what_does_not_fit_together_is_refused(xl: StableDiffusionXLPipeline, model: T2I, write: Write) -> None:
    tensors = single_file(xl)
    with pytest.raises(MismatchError, match=r"is a Stable Diffusion XL model.*training takes"):
        model.require_sd1("training")
    name = "model.diffusion_model.label_emb.0.0.weight"
    with pytest.raises(MismatchError, match="text_time of width 1600, expected text_time of width 1584"):
        load_t2i(write(tensors | {name: torch.zeros(tensors[name].shape[0], 1600)}))
    half = {key: value for key, value in tensors.items() if "resblocks.2.attn" not in key}
    with pytest.raises(MismatchError, match="the second text encoder lacks"):
        load_t2i(write(half, "half.safetensors"))


def test_the_vae_stays_in_float32_where_float16_overflows(xl_file: Path) -> None:
    model = load_t2i(xl_file)
    model.to("cpu", torch.float16)
    assert (model.unet.dtype, model.text_encoder_2.dtype, model.vae.dtype) == (
        torch.float16,
        torch.float16,
        torch.float32,
    )
    assert model.decode(torch.zeros(1, 4, 4, 4, dtype=torch.float16)).dtype is torch.float32
    model.vae.register_to_config(force_upcast=False)
    assert model.to("cpu", torch.float16).vae.dtype is torch.float16
