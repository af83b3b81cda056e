"""Prompts of any length, with weights, from any layer: against compel's and diffusers' own."""

import copy
from pathlib import Path

import pytest
import torch
from compel import Compel, SplitLongTextMode
from diffusers import StableDiffusionPipeline
from torch import Tensor

from stillmotion.errors import ConfigError
from stillmotion.t2i import T2I, load_t2i
from stillmotion.t2i.emphasis import weighted


@pytest.fixture(scope="module")
def model(folder: Path) -> T2I:
    return load_t2i(folder)  # no test here changes it


def as_ever(model: T2I, texts: list[str]) -> Tensor:
    """Return the features of texts as any program of the field makes them."""
    tokens = model.tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return model.text_encoder(tokens.input_ids).last_hidden_state


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("a cat: black, 2:1", [("a cat: black, 2:1", 1)]),
        ("an (important) word", [("an ", 1), ("important", 1.1), (" word", 1)]),
        ("(cat:1.25)", [("cat", 1.25)]),
        ("( cat : .5 )s", [(" cat ", 0.5), ("s", 1)]),
        ("((sky)) [[sea]]", [("sky", 1.21), (" ", 1), ("sea", 0.826446)]),
        ("(a (b:1.5) [c]:2)", [("a ", 2), ("b", 3), (" ", 2), ("c", 1.818182)]),
        ("(unclosed [both", [("unclosed ", 1.1), ("both", 1)]),
        ("closed) nothing] at:1.2) all", [("closed) nothing] at:1.2) all", 1)]),
        (r"\(1990s\) \[x\] \\ C:\dir", [(r"(1990s) [x] \ C:\dir", 1)]),
        ("(one)(two)", [("onetwo", 1.1)]),
        ("[(as written)]", [("as written", 1)]),
        ("a (blunder:1.2.3) here", [("a ", 1), ("blunder:1.2.3", 1.1), (" here", 1)]),
        ("", []),
    ],
)
def test_weights_are_read_as_web_uis_write_them(prompt: str, pieces: list[tuple[str, float]]) -> None:
    assert weighted(prompt) == pieces


def test_plain_prompts_are_read_as_ever(model: T2I) -> None:
    texts = ["", "a photo of a cat, 35mm", "word " * 75]
    assert torch.equal(model.encode_text(texts), as_ever(model, texts))
    assert torch.equal(model.encode_text([r"a cat \(tabby\)", "[(x)]"]), as_ever(model, ["a cat (tabby)", "x"]))
    captions = ["a (cat:1.2)", "word " * 100]
    assert torch.equal(model.encode_text(captions, literal=True), as_ever(model, captions))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("a (red:1.3) ball", "a (red)1.3 ball"),
        ("a (big (red:1.2) ball:1.1)", "a (big (red)1.2 ball)1.1"),
        ("a (red:0.6) ball, (green grass:1.2)", "a (red)0.6 ball, (green grass)1.2"),
        ("a (red:0) ball", "a (red)0 ball"),
    ],
)
def test_weights_are_compels(ours: str, theirs: str, model: T2I) -> None:
    compel = Compel(model.tokenizer, model.text_encoder, truncate_long_prompts=False)
    expected = compel(theirs)
    told = model.encode_text([ours])
    assert (told - as_ever(model, ["a red ball"])).abs().max() > 1e-3
    torch.testing.assert_close(told, expected, rtol=0, atol=1e-6)


def test_long_prompts_are_read_to_their_end(model: T2I) -> None:
    long = ", ".join(f"a {colour} ball" for colour in ("red", "green", "blue", "grey") * 8)
    options = {"truncate_long_prompts": False, "split_long_text_mode": SplitLongTextMode.PHRASES}
    expected = Compel(model.tokenizer, model.text_encoder, **options)(long)
    empty, told, changed = model.encode_text(["", long, long + " (on fire:1.4)"])
    assert told.shape == (154, 64)
    torch.testing.assert_close(told, expected[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(empty, as_ever(model, ["", ""]).flatten(0, 1), rtol=0, atol=1e-6)
    assert torch.equal(told[:77], changed[:77]) and not torch.equal(told[77:], changed[77:])


def test_clip_skip_is_diffusers(model: T2I, pipe: StableDiffusionPipeline) -> None:
    pipe = copy.deepcopy(pipe)
    pipe.text_encoder.__dict__["text_model"] = (
        pipe.text_encoder
    )  # where diffusers 0.42 seeks the norm, and transformers 4 had it
    theirs, _ = pipe.encode_prompt("a photo of a cat", "cpu", 1, False, clip_skip=1)
    ours = model.encode_text(["a photo of a cat"], clip_skip=2)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert not torch.allclose(ours, model.encode_text(["a photo of a cat"]), atol=1e-3)
    both = model.encode_text(["a (photo:1.2) of a cat"], clip_skip=2)
    assert not torch.allclose(both, ours, atol=1e-4)
    assert not torch.allclose(both, model.encode_text(["a (photo:1.2) of a cat"]), atol=1e-3)
    with pytest.raises(ConfigError, match=r"clip_skip: expected an integer from 1 .* to 2, since .* got 3"):
        model.encode_text(["a"], clip_skip=3)


def test_half_precision_keeps_its_dtype(folder: Path) -> None:
    told = load_t2i(folder, dtype=torch.bfloat16).encode_text(["a (red:1.3) [ball]", "word " * 100])
    assert told.dtype is torch.bfloat16 and bool(told.isfinite().all())
