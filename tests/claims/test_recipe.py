"""The recipe from end to end on next to nothing: every stage leaves what the next one, and everyone else, loads."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPModel

import stillmotion as sm
from stillmotion.claims.recipe import GateClosed, RecipeConfig, cook, cooking, finish, gates, stages
from stillmotion.claims.recipe.cameras import CAMERAS, FEWER
from stillmotion.toyworld import brought_file, load_judge, models, weights_folder
from stillmotion.training.loop import LoopConfig

ONCE = LoopConfig(num_steps=1)


OVER = ("depth", "few-step", "neon", "pal", "stock", "stock-adapted", "stock-alone")
"""What is trained over the models, beside the camera motions."""


@pytest.mark.parametrize("over", [(), pytest.param(OVER, marks=pytest.mark.slow)], ids=["models", "all"])
def test_every_stage_leaves_what_the_next_one_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: tuple[str, ...]
) -> None:
    monkeypatch.setattr(cooking, "GATES", {})  # one step opens no gate
    config = RecipeConfig(
        folder=str(tmp_path),
        num_pictures=48,
        num_clips=2,
        moved_clips=8,
        **dict.fromkeys(("vae", "clip", "text", "base", "judge", "motion"), ONCE),
        depth=ONCE,
        few_step=ONCE,
        depth_pictures=4,
        style_pictures=2,
        stock_clips=1,
        **dict.fromkeys(
            ("camera_clips", "camera_steps", "style_steps", "word_steps", "adapter_steps", "stock_steps"),
            1,
        ),
    )
    first, *others = (*CAMERAS, *FEWER)
    left = {*others, *OVER} - {*over}
    whole = [name for name in stages(config) if name not in left | {first}]
    done = [step.stage for name in (*whole, first) for step in cook(config, only=name)]
    assert done == [*whole, first]
    assert not [step for name in (*whole, first) for step in cook(config, only=name)]  # nothing is done twice
    assert [name for name, (mark, _) in stages(config).items() if not mark.exists()] == [
        name for name in stages(config) if name in left
    ]

    weights = finish(config)
    assert sm.load(weights / "motion" / "v3_toyworld_mm.safetensors", expect=sm.MotionModule).variant.name == "v3"
    assert sm.load(brought_file("motion_loras", first, weights), expect=sm.MotionLora).weights
    if over:
        assert sm.load(brought_file("domain_adapter", "stock", weights), expect=sm.DomainAdapter).weights
        assert sm.load(brought_file("motion_loras", "few-step", weights), expect=sm.MotionLora).weights
        assert sm.load(brought_file("domain_adapter", "few-step", weights), expect=sm.DomainAdapter).weights
        assert sm.inspect(brought_file("loras", "neon", weights)).kind == "lora"
        assert sm.inspect(brought_file("embeddings", "pal", weights)).words == ("<pal>",)
        assert sm.inspect(brought_file("controls", "depth", weights)).kind == "controlnet"
    assert load_judge(weights)(torch.zeros(1, 3, 128, 128)).measures.shape == (1, 6)
    pipe = StableDiffusionPipeline.from_pretrained(weights)
    assert pipe("a red ball", num_inference_steps=1).images[0].size == (models.PICTURE_SIZE, models.PICTURE_SIZE)


def test_the_embedded_text_encoder_passes_its_gate_and_the_pairs_own_does_not(tmp_path: Path) -> None:
    """The pair alone had merged the shape words (decision 10)."""
    weights = tmp_path / "weights"
    shutil.copytree(weights_folder() / "tokenizer", weights / "tokenizer")
    shutil.copytree(weights_folder() / "text_encoder", weights / "text_encoder")
    config = RecipeConfig(folder=str(tmp_path))
    assert min(gates.check_text(config).values()) >= gates.LEAST_WORD_DIFFERENCE
    models.save_text_encoder(CLIPModel.from_pretrained(weights_folder() / "clip").text_model.float(), weights)
    with pytest.raises(GateClosed, match="shapes apart"):
        gates.check_text(config)
    with pytest.raises(GateClosed, match="shapes apart"):
        next(cook(config, only="base"))
    assert cooking.GATES["base"] is gates.check_text
