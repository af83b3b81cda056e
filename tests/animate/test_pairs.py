"""Any two of what is added to a model, or put in, from the command line: both act, and at strength 0 either is nothing.

One session's models are made once; each pair is a job of two frames and one step.
"""

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from stillmotion.animate import AnimateConfig, Session, animate
from stillmotion.cli.clips import GROUPS, SHORTS
from stillmotion.cli.parsing import Parser, add_config_flags, config_from

Flags = dict[str, list[str]]

PARTS = [
    "lora",
    "embedding",
    "motion_lora",
    "domain_adapter",
    "controlnet",
    "sparse_control",
    "t2i_adapter",
    "ip_adapter",
    "image",
    "video",
]
STRENGTHS = {"lora", "motion_lora", "domain_adapter", "controlnet", "sparse_control", "t2i_adapter", "ip_adapter"}


@pytest.fixture(scope="module")
def parts(
    tmp_path_factory: pytest.TempPathFactory,
    control_file: Callable[[str], Path],
    motion_lora_file: Callable[..., Path],
    domain_adapter_file: Path,
    style_file: Path,
) -> dict[str, str]:
    """Every part as the command line takes it, without its strength."""
    folder = tmp_path_factory.mktemp("inputs")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    (folder / "frames").mkdir()
    for index, frame in enumerate(pixels):
        Image.fromarray(frame).save(folder / f"frames/{index}.png")
    picture, embedding = folder / "frames/2.png", folder / "sks.safetensors"
    save_file({"emb_params": torch.randn(2, 32, generator=torch.Generator().manual_seed(5))}, embedding)
    return {
        "lora": f"--loras {style_file}",
        "embedding": f"--embeddings {embedding}",
        "motion_lora": f"--motion-loras {motion_lora_file()}",
        "domain_adapter": f"--domain-adapter {domain_adapter_file}",
        "controlnet": f"--controls {control_file('controlnet')}={folder}/frames",
        "sparse_control": f"--controls {control_file('sparse_rgb')}={picture}",
        "t2i_adapter": f"--controls {control_file('t2i_adapter')}={picture}",
        "ip_adapter": f"--controls {control_file('ip_adapter')}={picture}",
        "image": f"--image {picture}",
        "video": f"--video {folder}/frames",
    }


@pytest.fixture(scope="module")
def draw(tiny_model: Path, motion_file: Callable[..., Path], parts: dict[str, str]) -> Callable[..., np.ndarray]:
    """Return the frames of the parts named, each at a strength, as its flags say it."""
    session, motion, known = Session(), motion_file(), {}
    parser = Parser("animate", "")
    add_config_flags(parser, AnimateConfig, groups=GROUPS, shorts=SHORTS, positional=["prompt"])

    def frames(**strengths: float) -> np.ndarray:
        words = ["a sks ball", "-m", str(tiny_model), "--motion", str(motion), "--device", "cpu", "--seed", "7"]
        words += ["-L", "2", "-s", "1"]
        for name, strength in strengths.items():
            flag, value = parts[name].split()
            words += [flag, f"{value}:{strength}" if name in STRENGTHS else value]
        key = json.dumps(words)
        if key not in known:
            known[key] = animate(config_from(AnimateConfig, parser.parse(words)), session=session).frames
        return known[key]

    return frames


def different(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one.astype(int) - other).max() > 0)


@pytest.mark.parametrize(("one", "other"), [*combinations(PARTS, 2)])
def test_a_pair_acts_together(draw: Callable[..., np.ndarray], one: str, other: str) -> None:
    both = draw(**{one: 1.0, other: 1.0})
    assert both.shape == (2, 64, 64, 3)
    assert different(both, draw(**{one: 1.0})) and different(both, draw(**{other: 1.0}))


@pytest.mark.parametrize("name", sorted(STRENGTHS))
def test_strength_0_leaves_it_out(draw: Callable[..., np.ndarray], name: str) -> None:
    other = "lora" if name != "lora" else "controlnet"
    assert np.array_equal(draw(**{other: 1.0, name: 0.0}), draw(**{other: 1.0}))
    assert different(draw(**{name: 1.0}), draw())
