"""With the reference's weights, what the reference implementation computes: to 1e-5, in float32."""

import pytest
import torch

from stillmotion.checkpoints import load
from stillmotion.motion import DomainAdapter, MotionLora, MotionModule, plug
from stillmotion.sampling import Denoiser, Guidance, make_sampler, sample

from .conftest import Case


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return the norm of the difference over the norm of what is expected."""
    return float((ours - theirs).norm() / theirs.norm())


def motion_of(case: Case) -> MotionModule:
    """Return the case's motion module in float32, read by the public loader."""
    module = load(case.folder / "mm.ckpt", expect=MotionModule)
    assert module.variant.name == case.name
    return module.float()


@torch.no_grad()
def predict(case: Case) -> torch.Tensor:
    """Return the plugged UNet's output for the case's inputs."""
    return Denoiser(case.unet)(case.io["sample"], case.io["timestep"][0], case.io["text"])


def test_output(case: Case) -> None:
    with plug(case.unet, motion_of(case), case.io["sample"].shape[2]):
        assert relative(predict(case), case.io["output"]) <= 1e-5


def test_motion_loras(case: Case) -> None:
    if not (case.folder / "motion_lora.ckpt").exists():
        pytest.skip("the reference trained no MotionLoRA for v1")
    first = load(case.folder / "motion_lora.ckpt", expect=MotionLora)
    second = load(case.folder / "motion_lora_second.ckpt", expect=MotionLora)
    with plug(case.unet, motion_of(case), case.io["sample"].shape[2]) as plugged:
        plugged.add(first, strength=0.7)
        assert relative(predict(case), case.io["output_motion_lora_0.7"]) <= 1e-5
        plugged.add(second, strength=0.4)
        assert relative(predict(case), case.io["output_motion_lora_0.7_second_0.4"]) <= 1e-5


def test_domain_adapter(case: Case) -> None:
    if not (case.folder / "adapter.ckpt").exists():
        pytest.skip("the reference has no domain adapter for v1")
    adapter = load(case.folder / "adapter.ckpt", expect=DomainAdapter)
    with plug(case.unet, motion_of(case), case.io["sample"].shape[2]) as plugged:
        plugged.add(adapter, strength=0.5)
        assert relative(predict(case), case.io["output_adapter_0.5"]) <= 1e-5


def test_ddim_trajectory(case: Case) -> None:
    motion = motion_of(case)
    sampler = make_sampler("ddim", motion.variant.noise_schedule.scheduler_kwargs(), "epsilon")
    noise, text = case.io["sample"][:1], case.io["text"]
    with plug(case.unet, motion, noise.shape[2]):
        *_, last = sample(
            Denoiser(case.unet), sampler, noise, Guidance(text[1:2], text[:1], 7.5), num_inference_steps=8
        )
    assert sampler.timesteps.tolist() == case.io["ddim8_timesteps"].tolist()
    assert relative(last.latents, case.io["ddim8_cfg7.5_latents"]) <= 1e-4
