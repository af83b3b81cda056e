"""CLIP scores are those of transformers' own CLIP model on the same pictures."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import stillmotion as sm
from stillmotion.errors import FileError
from stillmotion.t2i.clip_pair import NotHereError, load_clip, named_clip
from stillmotion.toyworld import weights_folder

PROMPT = "a red ball rolling right on green grass"


def cosines(frames: np.ndarray, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cosines by CLIPModel's own forward: frames with texts, frames with frames; and the frames' features."""
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    folder = weights_folder()
    model = CLIPModel.from_pretrained(folder / "clip", dtype=torch.float32).eval()
    pixels = CLIPImageProcessorPil.from_pretrained(folder / "clip")(images=list(frames), return_tensors="pt")
    tokens = CLIPTokenizer.from_pretrained(folder / "tokenizer")(texts, padding="max_length", return_tensors="pt")
    with torch.no_grad():
        found = model(**pixels, **tokens)
    own = found.image_embeds  # of unit length
    return found.logits_per_image / model.logit_scale.detach().exp(), own @ own.T, own


def test_scores_equal_transformers(panned: np.ndarray, written: Callable[..., Path], pictures: Path) -> None:
    from PIL import Image

    clip = written(panned, "clip", PROMPT)
    wanted = ("text", "domain", "smoothness")
    found = sm.evaluate(sm.EvaluateConfig(clips=(str(clip),), references=pictures, metrics=wanted))
    references = np.stack([np.asarray(Image.open(file)) for file in sorted(pictures.iterdir())])
    text, frames, features = cosines(panned, [PROMPT])
    _, _, shown = cosines(references, [PROMPT])
    values = found.clips[0].values
    assert values["text"] / 100 == pytest.approx(float(text.mean()), abs=1e-5)
    assert values["smoothness"] / 100 == pytest.approx(float(frames.diagonal(1).mean()), abs=1e-5)
    assert values["domain"] / 100 == pytest.approx(float((features @ shown.T).mean()), abs=1e-5)
    assert np.array(found.clips[0].series["text"]) / 100 == pytest.approx(text[:, 0].numpy(), abs=1e-5)
    assert set(found.clip_files) == {"model.safetensors"} and not found.skipped


def test_a_still_clip_is_wholly_smooth(still: np.ndarray, written: Callable[..., Path]) -> None:
    found = sm.evaluate(sm.EvaluateConfig(clips=(str(written(still, "clip")),), metrics=("smoothness",)))
    assert found.metrics["smoothness"].mean == pytest.approx(100, abs=1e-4)


def test_the_right_words_score_higher(written: Callable[..., Path]) -> None:
    from stillmotion.toyworld import draw_clips, parse

    drawn = draw_clips([parse(PROMPT)], seed=1, indices=[0]).pixels[0]
    frames = ((drawn + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 3, 0).numpy()
    config = sm.EvaluateConfig(clips=(str(written(frames, "clip", PROMPT)),), metrics=("text",))
    right = sm.evaluate(config).metrics["text"].mean
    assert right > sm.evaluate(config.replace(prompt="a blue star at night")).metrics["text"].mean + 20


def test_long_prompts_and_other_worlds_are_noted(still: np.ndarray, written: Callable[..., Path]) -> None:
    clip = written(still, "clip", "a corgi " * 20)
    found = sm.evaluate(sm.EvaluateConfig(clips=(str(clip),), metrics=("text",)))
    assert any("tokens are over CLIP's length" in note for note in found.notes)
    assert any("give --clip" in note for note in found.notes)


def test_a_folder_as_transformers_saves_it(tmp_path: Path, still: np.ndarray) -> None:
    source = weights_folder()
    folder = tmp_path / "whole"
    shutil.copytree(source / "clip", folder)
    for file in (source / "tokenizer").iterdir():
        shutil.copy(file, folder)
    shown = list(still[:2])
    assert torch.equal(load_clip(str(folder)).of_pictures(shown), load_clip(str(source / "clip")).of_pictures(shown))


def spoilt(folder: Path, what: str) -> Path:
    """A copy of the toyworld's CLIP with one thing wrong."""
    shutil.copytree(weights_folder() / "clip", folder)
    shutil.copytree(weights_folder() / "tokenizer", folder.parent / "tokenizer")
    config = json.loads((folder / "config.json").read_text())
    if what == "half":
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "clip_text_model"}))
    elif what == "damaged":
        (folder / "model.safetensors").write_bytes(b"none")
    elif what == "incomplete":
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        weights.pop("visual_projection.weight")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    elif what == "no tokenizer":
        shutil.rmtree(folder.parent / "tokenizer")
    else:
        (folder / what).unlink()
    return folder


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("config.json", "is no CLIP model: it has no config.json"),
        ("half", "says 'clip_text_model' .half a pair"),
        ("model.safetensors", "has no weights"),
        ("preprocessor_config.json", "does not say how pictures are prepared"),
        ("damaged", "cannot be loaded as a CLIP model"),
        ("incomplete", r"1 of its weights are missing, the first visual_projection\.weight"),
        ("no tokenizer", "has no tokenizer"),
    ],
)
def test_what_is_no_clip_model_is_named(what: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=said):
        load_clip(str(spoilt(tmp_path / "clip", what)))


def test_what_cannot_be_a_clip_model_is_refused_before_anything_is_read(
    still: np.ndarray, written: Callable[..., Path]
) -> None:
    clip = written(still, "clip")
    with pytest.raises(FileError, match=r"clip is no CLIP model: it has no config\.json"):
        sm.evaluate(sm.EvaluateConfig(clips=(str(clip),), clip=str(clip)))
    with pytest.raises(FileError, match=r"did you mean .*clip"):
        named_clip(str(weights_folder()))
    with pytest.raises(FileError, match="is a file"):
        named_clip(str(weights_folder() / "model_index.json"))
    with pytest.raises(FileError, match="does not exist"):
        named_clip("/nowhere/at/all")


def test_a_hub_model_that_is_not_here_is_skipped(still: np.ndarray, written: Callable[..., Path]) -> None:
    with pytest.raises(NotHereError):
        load_clip("nobody/has-this-clip")
    clip = str(written(still, "clip", PROMPT))
    found = sm.evaluate(sm.EvaluateConfig(clips=(clip,), clip="nobody/has-this-clip", metrics=("text", "flicker")))
    assert set(found.metrics) == {"flicker"}
    assert "nobody/has-this-clip was not fetched" in found.skipped["text"]
