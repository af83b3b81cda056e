"""Whole runs against diffusers' own pipelines: Stable Diffusion XL, AnimateLCM and AnimateDiff-Lightning.

Motion norms pool over frames here, as diffusers has them always.
"""

from typing import Any

import pytest
import torch
from diffusers import (
    AnimateDiffPipeline,
    AnimateDiffSDXLPipeline,
    AutoencoderKL,
    EulerDiscreteScheduler,
    LCMScheduler,
    MotionAdapter,
    SchedulerMixin,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNetMotionModel,
)
from tests.parity.test_diffusers import assert_equal, shake
from tests.t2i.sdxl_models import SIDE, WIDTHS, make_pipe

from stillmotion.motion import VARIANTS, MotionModule, plug
from stillmotion.sampling import Denoiser, Guidance, Place, Text, TravellingText, make_sampler, sample
from stillmotion.seeding import generator
from stillmotion.shapes import unfold_frames
from stillmotion.t2i import T2I

FRAMES, SEED = 3, 5


def make_motion(variant: str, widths: tuple[int, ...]) -> tuple[MotionModule, MotionAdapter]:
    """Return the same random weights as ours and as diffusers'."""
    motion = MotionModule.from_variant(
        variant, block_out_channels=widths, layers_per_block=1, motion_norm="across_frames"
    )
    shake(motion.eval(), 2)
    geometry = motion.geometry
    adapter = MotionAdapter(
        block_out_channels=widths,
        motion_layers_per_block=1,
        use_motion_mid_block=geometry.has_mid_block,
        motion_max_seq_length=geometry.max_frames,
    )
    adapter.load_state_dict(motion.state_dict(), strict=True)
    return motion, adapter


def moving(unet: UNet2DConditionModel, adapter: MotionAdapter) -> UNetMotionModel:
    """Return diffusers' motion UNet of an SDXL model; of sizes and whole texts it would keep random weights otherwise."""
    made = UNetMotionModel.from_unet2d(unet, adapter).eval()
    made.add_embedding.load_state_dict(unet.add_embedding.state_dict())  # which 0.42 forgets to copy
    return made


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def sampled(
    unet: UNet2DConditionModel, motion: MotionModule, noise: torch.Tensor, guidance: Guidance, steps: int
) -> Any:
    """Return our clean latents, sampled as the motion module's variant says."""
    variant = motion.variant
    sampler = make_sampler(variant.sampler, variant.noise_schedule.scheduler_kwargs(), "epsilon")
    with plug(unet, motion, FRAMES):
        return [*sample(Denoiser(unet), sampler, noise, guidance, num_inference_steps=steps, seed=SEED)][-1].latents


@pytest.fixture(scope="module")
def xl() -> StableDiffusionXLPipeline:
    pipe = make_pipe()
    shake(pipe.unet, 1)
    return pipe


def test_one_prediction_of_sdxl(xl: StableDiffusionXLPipeline) -> None:
    motion, adapter = make_motion("sdxl_beta", WIDTHS)
    theirs = moving(xl.unet, adapter)
    latents, tokens, pooled = drawn(2, 4, FRAMES, 8, 8), drawn(2, 5, 96), drawn(2, 48)
    with torch.no_grad(), plug(xl.unet, motion, FRAMES):
        ours = Denoiser(xl.unet)(latents, 321, Text(tokens, pooled, (24, 32, 0, 0, 24, 32)))
        told = {"text_embeds": pooled, "time_ids": torch.tensor([[24.0, 32, 0, 0, 24, 32]] * 2)}
        rows = tokens.repeat_interleave(FRAMES, 0)
        other = theirs(latents, 321, encoder_hidden_states=rows, added_cond_kwargs=told).sample
        changed = Denoiser(xl.unet)(latents, 321, Text(tokens, pooled, (512, 512, 0, 0, 24, 32)))
        merged = Denoiser(xl.unet)(
            latents, 321, Text(tokens, pooled, (24, 32, 0, 0, 24, 32)), added_cond_kwargs={"x": 0}
        )
    assert_equal(ours, other)
    assert not torch.allclose(ours, changed, rtol=0.01) and torch.equal(ours, merged)


def test_a_run_of_sdxl(xl: StableDiffusionXLPipeline) -> None:
    motion, adapter = make_motion("sdxl_beta", WIDTHS)
    names = ("vae", "unet", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    parts = {name: getattr(xl, name) for name in names}
    schedule = {"beta_start": 0.00085, "beta_end": 0.02, "beta_schedule": "scaled_linear", "steps_offset": 1}
    scheduler = EulerDiscreteScheduler(**schedule, timestep_spacing="leading")
    moved = {**parts, "unet": moving(xl.unet, adapter)}
    theirs = AnimateDiffSDXLPipeline(**moved, motion_adapter=adapter, scheduler=scheduler)
    theirs.set_progress_bar_config(disable=True)
    noise = drawn(1, 4, FRAMES, SIDE // 2, SIDE // 2)
    size = {"num_frames": FRAMES, "height": SIDE, "width": SIDE, "num_inference_steps": 2, "guidance_scale": 5.0}
    other = theirs("a red ball", latents=noise.clone(), output_type="latent", **size).frames
    model = T2I(**parts, scheduler_config={}, source="tiny")
    text = model.text(["", "a red ball"], height=SIDE, width=SIDE)
    ours = sampled(model.unet, motion, noise, Guidance(text[1:], text[:1], 5.0), 2)
    assert_equal(ours, other)


def test_texts_as_a_whole_travel_with_their_tokens(xl: StableDiffusionXLPipeline) -> None:
    """Each frame alone, with its own blend of both, is the frame of the clip."""
    features = Text(drawn(2, 5, 96), drawn(2, 48), (16, 16, 0, 0, 16, 16))
    text = TravellingText(features, (Place(0, 1, 0.0), Place(0, 1, 0.5), Place(0, 1, 1.0)))
    empty, latents = Text(torch.zeros(1, 5, 96), torch.zeros(1, 48), features.sizes), drawn(1, 4, FRAMES, 8, 8)
    with torch.no_grad():
        clip = Denoiser(xl.unet).guided(latents, torch.tensor(321), Guidance(text, empty, 3.0))
        half = Text(features.tokens.mean(0, keepdim=True), features.pooled.mean(0, keepdim=True), features.sizes)
        alone = Denoiser(xl.unet).guided(latents[:, :, [1]], torch.tensor(321), Guidance(half, empty, 3.0))
        without = Text(half.tokens, features.pooled[:1], features.sizes)
        other = Denoiser(xl.unet).guided(latents[:, :, [1]], torch.tensor(321), Guidance(without, empty, 3.0))
    torch.testing.assert_close(clip[:, :, [1]], alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(alone, other, rtol=0.01)


LINEAR = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear", "steps_offset": 1}


@pytest.mark.parametrize(
    ("variant", "scheduler"),
    [
        ("animate_lcm", LCMScheduler(**LINEAR, clip_sample=False)),
        ("lightning_4step", EulerDiscreteScheduler(**LINEAR, timestep_spacing="trailing")),
    ],
)
def test_a_run_in_few_steps(variant: str, scheduler: SchedulerMixin, monkeypatch: pytest.MonkeyPatch) -> None:
    widths = (32, 64)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=widths,
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()
    shake(unet, 1)
    motion, adapter = make_motion(variant, widths)
    told, empty, noise = drawn(1, 5, 16), drawn(2, 5, 16)[1:], drawn(1, 4, FRAMES, 8, 8)
    steps, scale = VARIANTS[variant].num_inference_steps, VARIANTS[variant].guidance_scale
    vae = AutoencoderKL(
        block_out_channels=(32,), down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",)
    )
    theirs = AnimateDiffPipeline(vae, None, None, unet, adapter, scheduler)
    theirs.set_progress_bar_config(disable=True)
    asked = iter(range(steps))

    def same_noise(shape: torch.Size, **_: object) -> torch.Tensor:
        """Return the noise that our sampler adds at this step, which is each frame's own."""
        step = next(asked)
        frames = [torch.randn(4, 8, 8, generator=generator(SEED, f"sampler step {step}", n)) for n in range(FRAMES)]
        return unfold_frames(torch.stack(frames), FRAMES).view(shape)

    with monkeypatch.context() as patch:
        patch.setattr("diffusers.schedulers.scheduling_lcm.randn_tensor", same_noise)
        other = theirs(
            prompt_embeds=told,
            negative_prompt_embeds=empty,
            latents=noise.clone(),
            num_frames=FRAMES,
            height=8,
            width=8,
            num_inference_steps=steps,
            guidance_scale=scale,
            output_type="latent",
        ).frames
    assert next(asked, steps) == (steps - 1 if variant == "animate_lcm" else 0)
    assert_equal(sampled(unet, motion, noise, Guidance(told, empty, scale), steps), other)
