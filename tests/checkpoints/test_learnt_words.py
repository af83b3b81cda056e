"""Textual inversions, Custom Diffusion weights and trigger words, told from a file's header."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from stillmotion.checkpoints import inspect
from stillmotion.checkpoints.trigger_words import trigger_words

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
ORIGINAL = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2"


def test_textual_inversions(tmp_path: Path) -> None:
    contents: dict[str, tuple[object, tuple[object, ...]]] = {
        "a1111.pt": (
            {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.zeros(3, 768)}, "name": "aang", "step": 1},
            ("sd15", ("aang",), 3, 768),
        ),
        "old.pt": (
            {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": {"*": torch.zeros(1, 1024)}},
            ("sd2", (), 1, 1024),
        ),
        "learned_embeds.bin": ({"<cat-toy>": torch.zeros(768)}, ("sd15", ("<cat-toy>",), 1, 768)),
        "<new1>.bin": ({"<new1>": torch.zeros(64)}, (None, ("<new1>",), 1, 64)),
        "two.safetensors": ({"<a>": torch.zeros(2, 64), "<b>": torch.zeros(64)}, (None, ("<a>", "<b>"), 3, 64)),
        "emb.safetensors": ({"emb_params": torch.zeros(2, 32)}, (None, (), 2, 32)),
        "xl.safetensors": (
            {"clip_l": torch.zeros(4, 768), "clip_g": torch.zeros(4, 1280)},
            ("sdxl", (), 4, 2048),
        ),
    }
    for name, (content, expected) in contents.items():
        save_file(content, tmp_path / name) if name.endswith("safetensors") else torch.save(content, tmp_path / name)
        info = inspect(tmp_path / name)
        assert info.kind == "textual_inversion", name
        assert (info.variant, info.words, info.num_vectors, info.text_width) == expected, name


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({f"{LAYER}.processor.to_k_custom_diffusion.weight": torch.zeros(32, 768)}, ("diffusers", "sd15", ())),
        (
            {f"{LAYER}.processor.to_out_custom_diffusion.0.bias": torch.zeros(32), f"{LAYER}.processor": {}},
            ("diffusers", None, ()),
        ),
        (
            {"state_dict": {f"{ORIGINAL}.to_k.weight": torch.zeros(32, 768), "embed": torch.zeros(2, 768)}},
            ("original", "sd15", ("<new1>", "<new2>")),
        ),
        (
            {
                "unet": {f"{LAYER}.to_k.weight": {"u": torch.zeros(32, 2), "v": torch.zeros(2, 768)}},
                "modifier_token": {"<new1>": torch.zeros(768)},
            },
            ("original", "sd15", ("<new1>",)),
        ),
    ],
)
def test_custom_diffusion(content: dict[str, object], expected: tuple[object, ...], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "pytorch_custom_diffusion_weights.bin")
    torch.save({"<new1>": torch.zeros(768)}, tmp_path / "<new1>.bin")
    info = inspect(tmp_path)
    assert info.kind == "custom_diffusion"
    assert (info.dialect, info.variant, info.words) == expected


def test_a_unet_is_no_custom_diffusion(tmp_path: Path) -> None:
    tensors = {
        f"{ORIGINAL}.to_k.weight": torch.zeros(2, 768),
        "model.diffusion_model.input_blocks.0.0.bias": torch.zeros(2),
    }
    save_file(tensors, tmp_path / "unet.safetensors")
    assert inspect(tmp_path / "unet.safetensors").kind == "unet"


def tags(**folders: dict[str, object]) -> dict[str, str]:
    return {"ss_tag_frequency": json.dumps(folders)}


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"modelspec.trigger_phrase": "ohwx woman, oil painting"}, ("ohwx woman", "oil painting")),
        (tags(a={"sks dog": 20, "grass": 7}, b={"sks dog": 4}), ("sks dog",)),
        ({**tags(a={"dog": 2}), "modelspec.trigger_phrase": "ohwx"}, ("ohwx",)),
        (tags(a={f"tag {number}": 9 for number in range(5)}), ()),
        ({"ss_tag_frequency": "not JSON"}, ()),
        ({"ss_tag_frequency": "[1]"}, ()),
        (tags(a=["dog"], b={"cat": "often"}), ()),  # type: ignore[arg-type]
        ({}, ()),
    ],
)
def test_trigger_words(metadata: dict[str, str], words: tuple[str, ...], tmp_path: Path) -> None:
    assert trigger_words(metadata) == words
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors: dict[str, Tensor] = {
        f"{stem}.lora_down.weight": torch.zeros(2, 8),
        f"{stem}.lora_up.weight": torch.zeros(8, 2),
    }
    save_file(tensors, tmp_path / "style.safetensors", metadata=metadata)
    assert inspect(tmp_path / "style.safetensors").trigger_words == words
