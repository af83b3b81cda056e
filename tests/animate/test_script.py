"""What a job says of its frames, and the files of other programs in this one's words."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillmotion.animate import AnimateConfig
from stillmotion.animate.foreign_jobs import read_jobs, translated
from stillmotion.animate.guidance import guidance_of
from stillmotion.animate.script import (
    context_of,
    joined,
    lora_curves,
    negatives_of,
    prompts_of,
    read_block,
)
from stillmotion.errors import ConfigError
from stillmotion.sampling import TravellingText

BLOCK = """masterpiece, best quality
0: closed mouth
8: open mouth
-1: a smile
soft light"""


def job(**fields: Any) -> AnimateConfig:
    return AnimateConfig(**{"prompt": "a cat", "num_frames": 16, **fields})


def test_a_prompt_alone_stands_at_the_first_frame() -> None:
    assert prompts_of(job()) == {0: "a cat"} and negatives_of(job()) == {0: ""}
    assert prompts_of(job(prompt="2001: a space odyssey")) == {0: "2001: a space odyssey"}
    assert prompts_of(job(head_prompt="best,", tail_prompt=" dusk")) == {0: "best, a cat, dusk"}


def test_a_map_goes_on_from_the_prompt() -> None:
    told = job(prompt_map={8: "a dog", -1: "a fox"}, negative_map={0: "blurry", 4: "dark"})
    assert prompts_of(told) == {0: "a cat", 8: "a dog", 15: "a fox"}
    assert negatives_of(told) == {0: "blurry", 4: "dark"}
    assert AnimateConfig.from_dict(json.loads(json.dumps(told.to_dict()))) == told


def test_the_web_ui_s_block_is_read_as_it_is() -> None:
    assert prompts_of(job(prompt=BLOCK)) == {
        0: "masterpiece, best quality, closed mouth, soft light",
        8: "masterpiece, best quality, open mouth, soft light",
        15: "masterpiece, best quality, a smile, soft light",
    }
    assert read_block("0: one line", "prompt").texts == {0: "one line"}


@settings(max_examples=50, deadline=None)
@given(
    texts=st.dictionaries(st.integers(0, 99), st.text("abc ,:", min_size=1).filter(str.strip), min_size=2),
    head=st.text("abc"),
)
def test_every_block_is_read_back(texts: dict[int, str], head: str) -> None:
    lines = [*([head] if head else []), *(f"{frame}: {texts[frame].strip()}" for frame in sorted(texts))]
    block = read_block("\n".join(lines), "prompt")
    assert block.head == head and block.texts == {frame: texts[frame].strip() for frame in sorted(texts)}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": "0: a\nb\n8: c"}, "prompt: line 2, 'b': expected `frame: text`"),
        ({"prompt": "0: a\n0: c"}, "prompt: line 2, '0: c': frame 0 is given twice"),
        ({"prompt": "8: a\n2: c"}, "prompt: line 2, '2: c': expected frames that ascend"),
        ({"prompt": "0: a\n16: c"}, r"prompt\.16: expected a frame from 0 to 15"),
        ({"prompt": BLOCK, "prompt_map": {3: "x"}}, "prompt_map: the prompt has lines with frames already"),
        ({"prompt_map": {0: "a dog"}}, r"prompt_map\.0: the prompt is what frame 0 shows"),
        ({"prompt_map": {20: "a dog"}}, r"prompt_map\.20: expected a frame from 0 to 15"),
        ({"prompt_map": {"first": "a dog"}}, r"prompt_map\.first: expected an integer"),
        ({"prompt_map": {4: " "}}, r"prompt_map\.4: expected text that is not empty"),
        ({"negative_map": {-17: "x"}}, r"negative_map\.-17: expected a frame"),
        ({"guidance_scale": {0: 7, 99: 3}}, r"guidance_scale\.99: expected a frame"),
        ({"guidance_scale": {0: 700}}, r"guidance_scale\.0: expected a number from 0 to 100"),
        ({"motion_strength": {"x": 1}}, "motion_strength"),
        ({"motion_strength": {}}, "motion_strength: expected a frame at least"),
        ({"motion_lora_strengths": [{0: 1}]}, "motion_lora_strengths: expected one for each of 0 motion_loras, got 1"),
        (
            {"motion_loras": ["a.ckpt"], "motion_lora_strengths": [{40: 1}]},
            r"motion_lora_strengths\.0\.40: expected a frame",
        ),
        ({"hold_ratio": 2}, "hold_ratio: expected a number from 0 to 1"),
        ({"context_overlap": 16}, "context_overlap: expected an integer from 0 to 15"),
        ({"loop": "closed", "context": "static"}, "loop: a closed loop needs windows that wrap"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_place(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        job(**fields)


def test_strengths_of_motion_loras_multiply_their_file_s() -> None:
    told = job(num_frames=3, motion_loras=["a.ckpt:0.5", "b.ckpt"], motion_lora_strengths=[{0: 0, 2: 1}, 0.3])
    assert lora_curves(told) == ((0.0, 0.25, 0.5), 0.3)
    assert lora_curves(job(motion_loras=["a.ckpt:0.5"])) == (0.5,)


def test_guidance_of_a_job_asks_for_each_text_once() -> None:
    asked: list[str] = []

    def encode(texts: list[str]) -> torch.Tensor:
        asked.extend(texts)
        return torch.arange(float(len(texts))).view(-1, 1, 1).expand(-1, 2, 3)

    guidance = guidance_of(job(num_frames=5, prompt_map={4: "a dog"}, guidance_scale={0: 2, 4: 4}), encode)
    assert asked == ["", "a cat", "a dog"]
    assert isinstance(guidance.text, TravellingText) and guidance.empty[0, 0, 0] == 0
    assert guidance.text.rows(range(5))[:, 0, 0].tolist() == [1, 1.25, 1.5, 1.75, 2]
    assert guidance.scale == (2, 2.5, 3, 3.5, 4)
    plain = guidance_of(job(), encode)
    assert isinstance(plain.text, torch.Tensor) and plain.scale == 7.5


def test_windows_of_a_job() -> None:
    assert context_of(job()).schedule == "static" and context_of(job()).shared == 4
    assert context_of(job(loop="closed")).schedule == "looped"
    inside = context_of(job(context="inside", loop="closed"))
    assert (inside.schedule, inside.shared, inside.closed) == ("looped", 12, True)


def test_commas_are_mended() -> None:
    assert joined("a, ", "", " b ,", "c") == "a, b, c" and joined("", " as it is,") == " as it is,"


REFERENCE = """
- inference_config: "configs/inference/inference-v2.yaml"
  motion_module: "models/Motion_Module/mm_sd_v15_v2.ckpt"
  motion_module_lora_configs:
    - path: "models/MotionLoRA/v2_lora_ZoomIn.ckpt"
      alpha: 0.9
  dreambooth_path: "models/DreamBooth_LoRA/realisticVisionV40.safetensors"
  lora_model_path: ""
  seed: [45987230, 10788741199826055526]
  steps: 25
  guidance_scale: 7.5
  prompt:
    - "b&w photo of 42 y.o man"
    - "close up photo of a rabbit"
  n_prompt:
    - "semi-realistic, cgi"
"""


def test_the_reference_s_list_of_jobs(tmp_path: Path) -> None:
    path = tmp_path / "2_motionlora.yaml"
    path.write_text(REFERENCE, encoding="utf-8")
    first, second = (AnimateConfig.from_dict(found.fields) for found in read_jobs(path))
    assert (first.prompt, first.seed, first.num_inference_steps) == ("b&w photo of 42 y.o man", 45987230, 25)
    assert (second.prompt, second.seed) == ("close up photo of a rabbit", 10788741199826055526)
    assert second.negative_prompt == "semi-realistic, cgi" and second.motion == "models/Motion_Module/mm_sd_v15_v2.ckpt"
    assert [str(lora) for lora in second.motion_loras] == ["models/MotionLoRA/v2_lora_ZoomIn.ckpt:0.9"]
    assert read_jobs(path)[1].where == "job 1, prompt 2"


def test_the_reference_s_first_version_and_its_adapters() -> None:
    (only,) = translated(
        {
            "ToonYou": {
                "path": "toonyou.safetensors",
                "motion_module": ["mm_sd_v14.ckpt"],
                "seed": -1,
                "steps": 4,
                "n_prompt": [""],
                "prompt": ["a girl"],
                "adapter_lora_path": "v3_sd15_adapter.ckpt",
                "lora_model_path": "x.safetensors",
                "controlnet_path": "sparse.ckpt",
                "controlnet_images": ["a.png"],
                "controlnet_image_indexs": [0, 8],
            }
        }
    )
    config = AnimateConfig.from_dict(only.fields)
    assert (config.model, config.motion, config.seed) == ("toonyou.safetensors", "mm_sd_v14.ckpt", None)
    assert str(config.domain_adapter) == "v3_sd15_adapter.ckpt:1.0" and config.loras[0].strength == 0.8
    assert (config.controls[0].source, config.controls[0].frames) == ("a.png", (0, 8))


def test_prompt_travel_json(tmp_path: Path) -> None:
    path = tmp_path / "prompt_travel.json"
    path.write_text(
        '{\n\t"name": "sample", "path": "model.safetensors", "motion_module": "mm.ckpt", "vae_path": "", "compile": false,'
        ' "seed": [1, -1], "scheduler": "k_dpmpp_2m_sde", "steps": 30, "guidance_scale": 8, "clip_skip": 2,'
        ' "prompt_fixed_ratio": 0.8, "head_prompt": "1girl", "tail_prompt": "dusk", "n_prompt": ["bad"],'
        ' "prompt_map": {"0": "smile", "8": "cry", "-1": "sleep"}, "lora_map": {"s.safetensors": 0.6},'
        ' "motion_lora_map": {"zoom.ckpt": 1}, "controlnet_map": {"input_image_dir": "", "canny": {"enable": false}}}',
        encoding="utf-8",
    )
    first, second = (AnimateConfig.from_dict(found.fields) for found in read_jobs(path))
    assert prompts_of(first) == {0: "1girl, smile, dusk", 8: "1girl, cry, dusk", 15: "1girl, sleep, dusk"}
    assert (first.seed, second.seed, first.hold_ratio, first.sampler) == (1, None, 0.8, "dpm++_sde_karras")
    assert (first.clip_skip, first.vae, first.negative_prompt) == (2, None, "bad")
    assert [str(x) for x in (*first.loras, *first.motion_loras)] == ["s.safetensors:0.6", "zoom.ckpt:1.0"]


def test_what_a_prompt_travel_file_says_to_another_command_is_told_and_left_out() -> None:
    enlarging = {"scheduler": "ddim", "steps": 20, "controlnet_tile": {"enable": True}}
    (found,) = translated(
        {"prompt_map": {"0": "a"}, "steps": 3, "upscale_config": enlarging, "context_schedule": "uniform"}
    )
    assert AnimateConfig.from_dict(found.fields).upscale == 1
    assert [note.split(":")[0] for note in found.notes] == ["context_schedule", "upscale_config"]


def test_our_own_file_may_have_a_map_alone() -> None:
    (found,) = translated({"prompt_map": {0: "a", 8: "b"}, "seed": 3})
    assert prompts_of(AnimateConfig.from_dict(found.fields)) == {0: "a", 8: "b"}


@pytest.mark.parametrize(
    ("loaded", "said"),
    [
        (
            [{"prompt": ["a", "b", "c"], "n_prompt": ["x", "y"]}],
            r"job 1\.n_prompt: expected 1 or as many as prompts \(3\)",
        ),
        ([{"prompt": ["a", "b"], "seed": [1, 2, 3]}], r"job 1\.seed: expected 1 or as many as prompts \(2\), got 3"),
        ([{"prompt": ["a"], "stepz": 3}], r"job 1\.stepz: this key of a reference job is not known"),
        ([{"steps": 3}], r"job 1\.prompt: missing"),
        (["a"], "job 1: expected a mapping"),
        ("just text", "expected `key: value` lines or a list of jobs, got a str"),
        ({"prompt_map": {0: "a"}, "steps": 3, "scheduler": "heun"}, "scheduler: 'heun' is none of those here"),
        ({"prompt_map": {0: "a"}, "steps": 3, "lora_map": {"a": {"0": 1}}}, r"lora_map\.a: expected its strength"),
        ({"prompt_map": {0: "a"}, "steps": 3, "upscale": 2}, "upscale: this key of a prompt-travel file is not known"),
        (
            {"prompt_map": {0: "a"}, "steps": 3, "controlnet_map": {"canny": {"enable": True}}},
            r"controlnet_map\.canny: switched on",
        ),
    ],
)
def test_what_cannot_be_translated_is_named(loaded: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        translated(loaded)
