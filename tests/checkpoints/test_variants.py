"""Variants beside v1 to v3: told by their tensors or, where these are v2's, by the file's name; what each is sampled with."""

from pathlib import Path

import pytest
import torch

import stillmotion as sm
from stillmotion.motion import VARIANTS
from stillmotion.sampling import SAMPLERS

from .conftest import hotshot_motion, reference_motion, same, write


@pytest.mark.parametrize(
    ("name", "length", "variant", "num_frames"),
    [
        ("animatediff_lightning_4step_diffusers.safetensors", 32, "lightning_4step", 32),
        ("animatediff_lightning_1step_comfyui.safetensors", 32, "lightning_1step", 32),
        ("AnimateDiff-Lightning 8-step.ckpt", 32, "lightning_8step", 32),
        ("animatediff_lightning_16step.safetensors", 32, "v2", 32),
        ("AnimateLCM_sd15_t2v.ckpt", None, "animate_lcm", 64),
        ("animate-lcm-fp16.safetensors", 32, "animate_lcm", 32),
        ("mm.ckpt", None, "animate_lcm", 64),
        ("AnimateLCM/diffusion_pytorch_model.safetensors", 32, "animate_lcm", 32),
        ("mm_lightning.ckpt", 32, "v2", 32),
    ],
)
def test_kin_of_v2(tmp_path: Path, name: str, length: int | None, variant: str, num_frames: int) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    path = write(tmp_path / name, reference_motion(mid=True, length=length))
    info = sm.inspect(path, hashed=False)
    assert info.variant == variant
    assert bool(info.note) == (variant != "v2" and path.name != "AnimateLCM_sd15_t2v.ckpt")  # where there is a doubt
    motion = sm.load(path, expect=sm.MotionModule)
    assert (motion.variant, motion.max_frames) == (VARIANTS[variant], num_frames)
    assert sm.load(path, expect=sm.MotionModule, variant="v2").variant.name == "v2"
    kept = sm.save(motion, tmp_path / "kept.safetensors")
    assert sm.inspect(kept, hashed=False).variant == variant  # what is written needs no name


def test_a_name_tells_nothing_of_another_layout(tmp_path: Path) -> None:
    path = write(tmp_path / "lightning_4step.ckpt", reference_motion())
    assert sm.inspect(path, hashed=False).variant == "v3"
    with pytest.raises(sm.MismatchError, match="lacks a mid block, so it is no lightning_4step module"):
        sm.load(path, variant="lightning_4step")


def test_hotshot_xl(tmp_path: Path) -> None:
    """Its layers are the reference's under other names, but for ResNet norms that see all frames."""
    path = write(tmp_path / "hsxl_temporal_layers.safetensors", hotshot_motion())
    info = sm.inspect(path, hashed=False)
    assert (info.kind, info.variant, info.dialect, info.num_frames) == ("motion_module", "hotshot_xl", "hotshot", 24)
    assert info.widths == (32, 32, 64)
    motion = sm.load(path, expect=sm.MotionModule)
    other = sm.load(write(tmp_path / "mm.ckpt", reference_motion((32, 32, 64), 2, length=24)), expect=sm.MotionModule)
    assert same(motion.state_dict(), other.state_dict()) and other.variant.name == "sdxl_beta"
    assert (motion.variant.spatial_norm, motion.variant.motion_norm) == ("across_frames", "per_frame")
    converted = sm.convert(path, "stillmotion", tmp_path / "ours.safetensors")
    assert sm.inspect(converted, hashed=False).variant == "hotshot_xl"
    whole = {**hotshot_motion(), "down_blocks.0.resnets.0.conv1.weight": torch.zeros(32, 32, 3, 3)}
    assert "whole UNet" in sm.inspect(write(tmp_path / "unet.safetensors", whole), hashed=False).note


def test_every_variant_says_how_it_is_sampled() -> None:
    for name, variant in VARIANTS.items():
        assert variant.sampler in SAMPLERS and variant.trained_frames <= variant.max_frames, name
    assert [VARIANTS[f"lightning_{n}step"].num_inference_steps for n in (1, 2, 4, 8)] == [1, 2, 4, 8]
