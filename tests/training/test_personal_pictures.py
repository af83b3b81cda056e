"""The pictures that are learnt from: seen as they are meant to be, whole or set aside, in a folder or drawn."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import stillmotion as sm
from stillmotion.errors import ConfigError, FileError
from stillmotion.t2i.geometry import CONFIGS
from stillmotion.training import PersonalizeConfig, Prepared
from stillmotion.training.personalization.pictures import open_pictures, read_picture
from stillmotion.training.personalization.whole_model import save_single_file


def test_pictures_are_seen_as_they_are_meant(tmp_path: Path) -> None:
    lying = np.zeros((2, 4, 3), np.uint8)
    lying[:, 0] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    Image.fromarray(lying).save(tmp_path / "turned.png", exif=exif)
    upright = read_picture(tmp_path / "turned.png")
    assert upright.shape == (4, 2, 3)
    assert (upright[0] == (255, 0, 0)).all()
    assert (upright[1:] == 0).all()
    clear = np.zeros((2, 2, 4), np.uint8)
    clear[0] = (10, 20, 30, 255)
    clear[1] = (200, 0, 0, 0)  # a colour that nobody sees
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "clear.png")[:, 0].tolist() == [[10, 20, 30], [255, 255, 255]]
    Image.fromarray(np.full((2, 2), 90, np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(np.full((2, 2), 257 * 90, np.uint16)).save(tmp_path / "fine.png")
    indexed = Image.new("P", (2, 2), 0)
    indexed.putpalette([90, 90, 90])
    indexed.save(tmp_path / "indexed.png")
    for name in ("grey", "fine", "indexed"):
        assert read_picture(tmp_path / f"{name}.png").tolist() == [[[90] * 3] * 2] * 2
    Image.new("CMYK", (2, 2), (0, 0, 0, 255)).save(tmp_path / "print.jpg")
    assert read_picture(tmp_path / "print.jpg").max() < 5


def test_a_folder_is_listed_with_its_captions(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "deep/c.webp", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "b.txt").write_text("a ball\n")
    found = open_pictures(str(tmp_path), seed=0, size=8)
    assert [(found.item(i).key, found.item(i).caption) for i in range(len(found))] == [
        ("a.JPG", ""),
        ("b.png", "a ball"),
        ("deep/c.webp", ""),
    ]
    assert found.frames(0, [0]).shape == (1, 8, 8, 3)
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.JPG", "text": "a box"}) + "\n")
    told = open_pictures(str(tmp_path), seed=0, size=8)
    assert [told.item(i).caption for i in range(len(told))] == ["a box"]
    assert told.fingerprint() != found.fingerprint()
    assert len(open_pictures(str(tmp_path / "b.png"), seed=0, size=8)) == 1


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    for said, kind, match in (
        (tmp_path / "emty", FileError, "nearest name there is empty"),
        (tmp_path / "empty", FileError, "is empty"),
        (tmp_path / "other", FileError, r"no pictures, only letter\.txt"),
        (tmp_path / "other" / "letter.txt", FileError, "no picture by its ending"),
        ("toyworld:3:neno", ConfigError, "no style 'neno'; expected neon or paper"),
        ("toyworld:3:zoom-in", ConfigError, "no style 'zoom-in'"),
        ("toyworld:some:neon", ConfigError, "toyworld:COUNT"),
    ):
        with pytest.raises(kind, match=match):
            open_pictures(str(said), seed=0, size=8)
    (tmp_path / "none.png").touch()
    with pytest.raises(FileError, match="the file is empty"):
        read_picture(tmp_path / "none.png")


def test_a_broken_picture_is_set_aside(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(3):
        Image.fromarray(np.random.default_rng(index).integers(0, 255, (32, 32, 3), np.uint8)).save(
            folder / f"{index}.png"
        )
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])
    told: list[Prepared] = []
    config = PersonalizeConfig(
        method="lora",
        pictures=str(folder),
        instance_prompt="a ball",
        model=str(tiny_model),
        output_dir=tmp_path / "run",
        rank=2,
        num_steps=2,
        device="cpu",
    )
    sm.personalize(config, progress=lambda event: told.append(event) if isinstance(event, Prepared) else None)
    assert told[0].num_clips == 2
    assert json.loads((tmp_path / "run" / "broken-pictures.jsonl").read_text())["clip"] == "1.png"
    (folder / "2.png").write_text("<html>")
    with pytest.raises(FileError, match="2 of 3 clips are broken"):
        sm.personalize(config.replace(output_dir=tmp_path / "again"))
    for name in ("0.png", "1.png"):
        (folder / name).unlink()
    with pytest.raises(FileError, match="no format of pictures"):
        sm.personalize(config.replace(output_dir=tmp_path / "alone"))


def test_the_toyworld_draws_its_styles() -> None:
    neon, plain = (open_pictures(said, seed=1, size=32) for said in ("toyworld:3:neon", "toyworld:3"))
    assert len(neon) == 3
    assert neon.item(0).caption == f"a neon cartoon of {plain.item(0).caption}"
    bright = [source.frames(0, [0])[0].mean() for source in (plain, neon)]
    assert bright[1] < 0.6 * bright[0]  # the night sky of neon
    assert np.array_equal(neon.frames(1, [0]), open_pictures("toyworld:3:neon", seed=1, size=32).frames(1, [0]))
    word = open_pictures("toyworld:3:paper", seed=1, size=32, word="<cut>")
    assert word.item(2).caption.startswith("a <cut> cartoon of a ")


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_one_file_holds_the_whole_model(prediction_type: str, tiny_model: Path, tmp_path: Path) -> None:
    t2i = sm.load_t2i(tiny_model)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = CLIPTextConfig.from_pretrained(CONFIGS / "text_encoder").to_dict()
    t2i.text_encoder = CLIPTextModel(CLIPTextConfig.from_dict(text | sizes | {"projection_dim": 32})).eval()
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    t2i.vae = AutoencoderKL(block_out_channels=(32, 64), **blocks)
    t2i.tokenizer = CLIPTokenizer.from_pretrained(CONFIGS / "tokenizer")
    t2i.scheduler_config["prediction_type"] = prediction_type
    path = save_single_file(t2i, tmp_path / "model.safetensors", dtype=torch.float32, metadata={"a": "b"})
    again = sm.load_t2i(path)
    assert again.prediction_type == prediction_type
    for part in ("unet", "vae", "text_encoder"):
        ours, theirs = (getattr(model, part).state_dict() for model in (again, t2i))
        assert set(ours) == set(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), part
