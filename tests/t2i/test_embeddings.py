"""Textual inversions of every layout against diffusers' own loading; taken out, no trace is left."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor

from stillmotion.errors import ConfigError, FileError, MismatchError
from stillmotion.t2i import T2I, apply_embedding, load_t2i
from stillmotion.t2i.embeddings import negative_half

WIDTH = 64
PROMPT = "a photo of aang, smiling"


@pytest.fixture
def model(folder: Path) -> T2I:
    return load_t2i(folder)


def vectors(count: int, seed: int = 0, width: int = WIDTH) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) / 10


def a1111(path: Path, value: Tensor, name: str = "aang-500") -> Path:
    """Write what A1111's training page writes, which is DreamArtist's layout, too."""
    param = torch.nn.Parameter(value)
    beside = {"step": 499, "sd_checkpoint": "4e5d", "sd_checkpoint_name": None}
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": param}, "name": name, **beside}, path)
    return path


def emb_params(path: Path) -> Path:
    save_file({"emb_params": vectors(2)}, path)
    return path


def learned_embeds(path: Path) -> Path:
    torch.save({"<aang>": vectors(1)[0]}, path)
    return path


def token_named(path: Path) -> Path:
    save_file({"<aang>": vectors(4)}, path)
    return path


LAYOUTS: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "aang.pt": (lambda path: a1111(path, vectors(3)), ("aang", "aang-500")),
    "aang.safetensors": (emb_params, ("aang",)),
    "learned_embeds.bin": (learned_embeds, ("<aang>",)),
    "aang_v2.safetensors": (token_named, ("aang_v2", "<aang>")),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_equals_diffusers_and_leaves_no_trace(
    name: str, pipe: StableDiffusionPipeline, model: T2I, tmp_path: Path
) -> None:
    write, words = LAYOUTS[name]
    path = write(tmp_path / name)
    own = copy.deepcopy(pipe)
    own.load_textual_inversion(str(path.parent), weight_name=path.name, token="aang" if "safe" in name else None)
    word = words[-1] if name.endswith((".pt", ".bin")) else "aang"
    theirs, _ = own.encode_prompt(PROMPT.replace("aang", word), "cpu", 1, False)

    plain, keys = model.encode_text([PROMPT]), model.text_encoder.state_dict().keys()
    layer, vocabulary = model.text_encoder.get_input_embeddings(), model.tokenizer.get_vocab()
    embedding = apply_embedding(model, path)
    assert tuple(alias for known in embedding.words for alias in known.names) == words
    for alias in words:
        told = model.encode_text([PROMPT.replace("aang", alias)])
        assert (told - plain).abs().max() > 1e-3
        torch.testing.assert_close(told, theirs, rtol=0, atol=1e-6)
    assert torch.equal(model.encode_text(["a cat"]), load_t2i_text(pipe, "a cat"))
    assert model.report == [
        f"{name}: {len(embedding.words[0].vectors)} vectors applied, as {' or '.join(map(repr, words))}"
    ]
    assert model.files[path] == "embedding"
    assert model.tokenizer.get_vocab() == vocabulary
    embedding.remove()
    embedding.remove()
    assert model.text_encoder.get_input_embeddings() is layer
    assert model.text_encoder.state_dict().keys() == keys
    assert torch.equal(model.encode_text([PROMPT]), plain)
    assert model.report == [] and path not in model.files


def load_t2i_text(pipe: StableDiffusionPipeline, prompt: str) -> Tensor:
    return pipe.encode_prompt(prompt, "cpu", 1, False)[0]


def test_dreamartists_pair(model: T2I, tmp_path: Path) -> None:
    positive = a1111(tmp_path / "aang.pt", vectors(3), "aang")
    assert negative_half(positive) is None
    negative = a1111(tmp_path / "aang-neg.pt", vectors(6, 1), "aang-neg")
    assert negative_half(positive) == negative
    apply_embedding(model, positive)
    alone = model.encode_text(["aang-neg"])
    apply_embedding(model, negative)
    assert model.words.used_in("aang, aang-neg") == {"aang", "aang-neg"}
    assert len(model.words.numbers("aang-neg")) == 6 and len(model.words.numbers("Aang, aang-neg")) == 10
    assert not torch.allclose(model.encode_text(["aang-neg"]), alone, atol=1e-3)


def test_a_word_of_ones_own_weights_and_length(model: T2I, tmp_path: Path) -> None:
    path = emb_params(tmp_path / "style.safetensors")
    plain = model.encode_text(["a photo, style"])
    apply_embedding(model, path, word="my style (v2)")
    assert torch.equal(model.encode_text(["a photo, style"]), plain)
    told = model.encode_text([r"a photo, my style \(v2\)"])
    assert not torch.allclose(told, plain, atol=1e-3)
    assert not torch.allclose(model.encode_text([r"a photo, (my style \(v2\):1.4)"]), told, atol=1e-4)
    assert model.words.numbers("mystyle (v2)")[0] < 49408  # a piece of another word is not it
    long = model.encode_text([", ".join(["a photo"] * 40) + r", my style \(v2\)"])
    assert long.shape[1] == 154


def test_words_may_come_and_go_in_any_order(model: T2I, tmp_path: Path) -> None:
    plain = model.encode_text(["first and second"])
    first = apply_embedding(model, a1111(tmp_path / "first.pt", vectors(2), "first"))
    alone = model.encode_text(["first and second"])
    second = apply_embedding(model, a1111(tmp_path / "second.pt", vectors(3, 1), "second"))
    first.remove()
    assert not torch.equal(model.encode_text(["first and second"]), plain)
    first = apply_embedding(model, tmp_path / "first.pt")
    second.remove()
    assert torch.equal(model.encode_text(["first and second"]), alone)
    first.remove()
    assert torch.equal(model.encode_text(["first and second"]), plain)


def test_what_does_not_fit_is_refused_and_nothing_is_applied(model: T2I, tmp_path: Path) -> None:
    plain = model.encode_text(["aang"])
    path = tmp_path / "aang.safetensors"
    refused = {
        r"of Stable Diffusion XL \(clip_l and clip_g\)": {"clip_l": vectors(2), "clip_g": vectors(2, width=128)},
        "vectors of width 1024, the model's text encoder takes 64": {"emb_params": vectors(1, width=1024)},
        "is no textual inversion; its 1 tensors begin with conv": {"conv": torch.zeros(2, 2, 3, 3)},
    }
    for said, tensors in refused.items():
        save_file(tensors, path)
        with pytest.raises(MismatchError, match=said):
            apply_embedding(model, path)
    with pytest.raises(FileError, match="does not exist"):
        apply_embedding(model, tmp_path / "none.pt")
    assert torch.equal(model.encode_text(["aang"]), plain) and model.report == []
    apply_embedding(model, emb_params(path))
    with pytest.raises(ConfigError, match="the word 'aang' is taken by another; give it one of its own"):
        apply_embedding(model, a1111(tmp_path / "other.pt", vectors(1), "aang"))
