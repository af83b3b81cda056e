"""Clips of Stable Diffusion XL from folder and single file, and modules that say themselves in how many steps."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.t2i.sdxl_models import SIDE, WIDTHS, make_pipe, single_file

from stillmotion.animate import AnimateConfig, animate
from stillmotion.animate.plan import make_plan
from stillmotion.cli.door import main
from stillmotion.errors import MismatchError

Write = Callable[..., Path]
Job = Callable[..., AnimateConfig]


def test_a_clip_of_sdxl_from_a_folder_and_from_a_file(motion_file: Write, tmp_path: Path) -> None:
    pipe = make_pipe()
    pipe.save_pretrained(tmp_path / "xl")
    save_file(single_file(pipe), tmp_path / "xl.safetensors")
    motion = motion_file("sdxl_beta", WIDTHS)
    words = ["animate", "a red ball, rolling right", "--motion", str(motion), "-L", "3", "-s", "2", "--seed", "7"]
    out = ["-o", str(tmp_path / "out"), "--formats", "png", "--device", "cpu", "--dtype", "float32"]
    assert main([*words, *out, "-m", str(tmp_path / "xl")]) == 0
    (run,) = (tmp_path / "out").iterdir()
    record = json.loads((run / "run.json").read_text())
    config = record["config"]
    settled = (config["width"], config["height"], config["sampler"], config["guidance_scale"])
    assert settled == (SIDE, SIDE, "euler", 8.5)
    kinds = {file["kind"] for file in record["models"]}
    assert kinds >= {"unet", "vae", "text_encoder", "text_encoder_2", "a motion module (variant sdxl_beta)"}
    told = {**config, "output_dir": None}
    file = animate(AnimateConfig.from_dict({**told, "model": str(tmp_path / "xl.safetensors")}))
    folder = [np.asarray(Image.open(path)) for path in sorted((run / record["outputs"][0]["path"]).glob("*.png"))]
    assert np.array_equal(folder, file.frames) and file.frames.std() > 1
    for model in ("xl", "xl.safetensors"):
        other = {**told, "model": str(tmp_path / model), "motion": str(motion_file("v3", WIDTHS)), "variant": "v3"}
        with pytest.raises(MismatchError, match=r"v3 module for sd15 models, but .* is sdxl"):
            make_plan(AnimateConfig.from_dict(other))


def test_sdxl_modules_do_not_fit_other_models(motion_file: Write, job: Job) -> None:
    with pytest.raises(MismatchError, match=r"is a sdxl_beta module \(sdxl\) for a UNet of widths"):
        make_plan(job(motion=motion_file("sdxl_beta", WIDTHS)))
    with pytest.raises(MismatchError, match=r"is a hotshot_xl module for sdxl models, but .* is sd15"):
        make_plan(job(motion=motion_file("v3"), variant="hotshot_xl"))


@pytest.fixture(scope="module")
def few_steps(motion_file: Write) -> Callable[[str], Path]:
    """A file of v2's layout under another name."""

    def named(name: str) -> Path:
        source = motion_file("v2")
        return source.rename(source.with_name(name))

    return named


@pytest.mark.parametrize(
    ("name", "sampled", "said"),
    [
        ("animatediff_lightning_4step_diffusers.safetensors", ("euler_trailing", 4, 1.0), "4 steps of euler_trailing"),
        ("AnimateLCM_sd15_t2v.safetensors", ("lcm", 4, 1.5), "4 steps of lcm at guidance_scale 1.5"),
        ("mm.safetensors", ("ddim", 25, 7.5), None),
    ],
)
def test_a_module_says_how_it_is_sampled(
    few_steps: Callable[[str], Path], job: Job, name: str, sampled: tuple[str, int, float], said: str | None
) -> None:
    config = job(motion=few_steps(name), num_inference_steps=None)
    plan = make_plan(config)
    settled = plan.config
    assert (settled.sampler, settled.num_inference_steps, settled.guidance_scale) == sampled
    assert (said is None) == (not any("sampled in" in note for note in plan.notes))
    if said:
        assert any(said in note for note in plan.notes)
        asked = make_plan(config.replace(num_inference_steps=6, guidance_scale=2.0))
        assert (asked.config.num_inference_steps, asked.config.guidance_scale) == (6, 2.0)
        assert asked.config.sampler == sampled[0]
        assert any(
            re.search("here num_inference_steps 6, guidance_scale 2.0, as you said", note) for note in asked.notes
        )


def test_the_toyworld_and_hotshots_windows(motion_file: Write, job: Job) -> None:
    plan = make_plan(AnimateConfig(prompt="a red ball"))
    assert (plan.config.sampler, plan.config.num_inference_steps, plan.config.guidance_scale) == ("ddim", 25, 5.0)
    assert plan.config.context_length == 16
    clip = animate(job(motion=motion_file("v2"), variant="lightning_2step", num_inference_steps=None, num_frames=3))
    assert clip.run["config"]["num_inference_steps"] == 2 and clip.frames.std() > 0


def test_positions_are_made_up_to_64(motion_file: Write, job: Job) -> None:
    state = {name: value for name, value in load_file(motion_file("v2")).items() if not name.endswith(".pe")}
    path = motion_file("v2").with_name("AnimateLCM.safetensors")
    save_file(state, path)
    plan = make_plan(job(motion=path, num_frames=64, context_length=64))
    assert plan.config.context_length == 64
    with pytest.raises(MismatchError, match="this animate_lcm module has positions for 64 frames"):
        make_plan(job(motion=path, num_frames=80, context_length=65))
