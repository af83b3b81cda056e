"""Diffusers folders and hub ids: every packaging that people have, and what is said of those that are not whole."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from tests.t2i.test_single_file import same

from stillmotion.errors import FileError, MismatchError
from stillmotion.t2i import load_t2i, load_vae

UNET = "unet/diffusion_pytorch_model.safetensors"


def test_a_folder_is_what_diffusers_loads(pipe: StableDiffusionPipeline, folder: Path) -> None:
    model = load_t2i(folder)
    same(model, pipe)
    assert (model.native_size, model.scale, model.source, model.report) == (128, 2, str(folder), [])
    assert {str(file.relative_to(folder)): part for file, part in model.files.items()} == {
        UNET: "unet",
        "vae/diffusion_pytorch_model.safetensors": "vae",
        "text_encoder/model.safetensors": "text_encoder",
    }


def test_half_precision_files_alone(own_folder: Path) -> None:
    for part, stem in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        whole = own_folder / part / f"{stem}.safetensors"
        save_file(
            {name: value.half() for name, value in load_file(whole).items()}, whole.with_suffix(".fp16.safetensors")
        )
        whole.unlink()
    model = load_t2i(own_folder, dtype=torch.float32)
    assert model.unet.dtype is model.text_encoder.dtype is torch.float32
    assert own_folder / "unet/diffusion_pytorch_model.fp16.safetensors" in model.files


def test_a_text_encoder_as_old_programs_stored_it(pipe: StableDiffusionPipeline, own_folder: Path) -> None:
    file = own_folder / "text_encoder/model.safetensors"
    state = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in load_file(file).items()}
    save_file(state | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, file)
    model = load_t2i(own_folder)
    same(model, pipe)
    assert model.report == []


def test_shards_and_pickles(pipe: StableDiffusionPipeline, own_folder: Path) -> None:
    shutil.rmtree(own_folder / "unet")
    pipe.unet.save_pretrained(own_folder / "unet", max_shard_size="500KB")
    vae = own_folder / "vae/diffusion_pytorch_model.safetensors"
    torch.save(load_file(vae), vae.with_suffix(".bin"))
    vae.unlink()
    model = load_t2i(own_folder)
    same(model, pipe)
    assert len([part for part in model.files.values() if part == "unet"]) > 1
    assert vae.with_suffix(".bin") in model.files


def test_a_stray_tensor_is_reported_and_a_missing_one_refused(own_folder: Path) -> None:
    tensors = load_file(own_folder / UNET)
    save_file(tensors | {"stray.weight": torch.zeros(1)}, own_folder / UNET)
    assert load_t2i(own_folder).report == [
        "unet/diffusion_pytorch_model.safetensors: 1 tensors skipped, which no layer takes: stray.weight, …"
    ]
    del tensors["conv_in.bias"]
    save_file(tensors, own_folder / UNET)
    with pytest.raises(MismatchError, match=r"unet lacks 1 weights .* first conv_in.bias"):
        load_t2i(own_folder)


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("tokenizer", "it has no tokenizer"),
        ("tokenizer/*", "neither tokenizer.json nor vocab.json"),
        ("scheduler/scheduler_config.json", "scheduler_config.json is missing"),
        ("vae/*.safetensors", "vae has no weights"),
        ("unet/config.json", "config.json is missing"),
    ],
)
def test_a_folder_that_lacks_a_part(gone: str, said: str, own_folder: Path) -> None:
    for path in own_folder.glob(gone):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileError, match=said):
        load_t2i(own_folder)


def test_damaged_weights_and_other_families(own_folder: Path) -> None:
    (own_folder / UNET).write_bytes((own_folder / UNET).read_bytes()[:9000])
    with pytest.raises(FileError, match="unet cannot be loaded"):
        load_t2i(own_folder)
    (own_folder / "text_encoder_2").mkdir()
    with pytest.raises(FileError, match="has no tokenizer_2"):
        load_t2i(own_folder)
    (own_folder / "text_encoder_2").rmdir()
    config = json.loads((own_folder / "unet/config.json").read_text())
    (own_folder / "unet/config.json").write_text(json.dumps(config | {"_class_name": "UNetMotionModel"}))
    with pytest.raises(MismatchError, match="is a UNetMotionModel"):
        load_t2i(own_folder)


def test_a_vae_folder_or_the_model_around_it(pipe: StableDiffusionPipeline, folder: Path, tmp_path: Path) -> None:
    for source in (folder, folder / "vae"):
        assert torch.equal(load_vae(source).quant_conv.weight, pipe.vae.quant_conv.weight)
    with pytest.raises(FileError, match="no diffusers folder of an AutoencoderKL"):
        load_vae(tmp_path)


def test_a_hub_model_that_was_fetched_before(
    pipe: StableDiffusionPipeline, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "hub" / "models--someone--tiny-sd"
    shutil.copytree(folder, home / "snapshots" / "abc")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    model = load_t2i("someone/tiny-sd")
    same(model, pipe)
    assert model.source == "someone/tiny-sd"


def test_a_hub_model_that_is_not_here_says_what_to_do() -> None:
    with pytest.raises(
        FileError, match=r"someone/absent .*Go online once and try again, run `hf download someone/absent`"
    ):
        load_t2i("someone/absent")
    with pytest.raises(FileError, match="no-such-folder does not exist; give a diffusers folder"):
        load_t2i("no-such-folder")
