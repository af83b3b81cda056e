"""Text2Video-Zero beside diffusers' own, which is deprecated there but computes what the paper's authors released."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from diffusers import DDIMScheduler

from stillmotion.baselines.attending import attending, first_frame
from stillmotion.baselines.shifting import shifted
from stillmotion.baselines.text2video_zero import Zero, text2video_zero
from stillmotion.errors import Cancelled, ConfigError, MismatchError
from stillmotion.sampling import Denoiser, Guidance
from stillmotion.t2i import T2I

STEPS, T0, T1 = 8, 4, 6


def diffusers_zero() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers.pipelines.deprecated.text_to_video_synthesis import pipeline_text_to_video_zero

    return pipeline_text_to_video_zero


def sampler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1
    )


def clean(t2i: T2I, noise: torch.Tensor, zero: Zero, scale: float = 4.0) -> torch.Tensor:
    empty, text = t2i.encode_text(["", "a red ball"]).chunk(2)
    guidance = Guidance(text=text, empty=empty, scale=scale)
    steps = list(text2video_zero(Denoiser(t2i.unet), sampler(), noise, guidance, zero, num_inference_steps=STEPS))
    assert [step.index for step in steps] == list(range(1, steps[-1].total + 1))
    return steps[-1].latents


@pytest.mark.parametrize(("scale", "field"), [(4.0, (120.0, -70.0)), (7.5, (12.0, 12.0))])
def test_it_is_diffusers_own(t2i: T2I, scale: float, field: tuple[float, float]) -> None:
    before = copy.deepcopy(t2i.unet.state_dict())
    first = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    others = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = diffusers_zero().TextToVideoZeroPipeline(
            t2i.vae, t2i.text_encoder, t2i.tokenizer, t2i.unet, sampler(), None, None, requires_safety_checker=False
        )
        pipe.set_progress_bar_config(disable=True)
        theirs = pipe(
            "a red ball",
            video_length=5,
            num_inference_steps=STEPS,
            guidance_scale=scale,
            generator=torch.Generator().manual_seed(5),
            latents=first,
            motion_field_strength_x=field[0],
            motion_field_strength_y=field[1],
            t0=T0,
            t1=T1,
            output_type="latent",
        ).images
    noise = torch.cat([first, others]).transpose(0, 1)[None]
    ours = clean(t2i, noise, Zero(motion_field=field, t0=T0, t1=T1), scale)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours[0].transpose(0, 1), theirs, atol=1e-4, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in t2i.unet.state_dict().items())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in t2i.unet.modules())


@pytest.mark.parametrize(
    ("size", "field"),
    [((64, 64), (12.0, 12.0)), ((16, 24), (40.0, -9.0)), ((8, 8), (64.0, 128.0)), ((9, 13), (-33.0, 7.0))],
)
def test_latents_shift_as_in_diffusers(size: tuple[int, int], field: tuple[float, float]) -> None:
    latents = torch.randn(4, *size, generator=torch.Generator().manual_seed(0))
    frames = [1, 2, 5]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's, on meshgrid
        theirs = diffusers_zero().create_motion_field_and_warp_latents(*field, frames, latents.repeat(3, 1, 1, 1))
    assert torch.equal(shifted(latents, frames, field).transpose(0, 1), theirs)


def test_a_field_of_whole_latents_moves_things_left_and_up() -> None:
    latents = torch.arange(64.0).view(1, 8, 8)
    moved = shifted(latents, [0, 1, 2], (64.0, 64.0))  # an eighth of the picture: a latent
    assert torch.equal(moved[:, 0], latents)
    assert torch.equal(moved[:, 1, :7, :7], latents[:, 1:, 1:])
    assert torch.equal(moved[:, 2, :6, :6], latents[:, 2:, 2:])


def test_any_number_of_frames_together_gives_the_same_clip(t2i: T2I) -> None:
    noise = torch.randn(1, 4, 5, 8, 8, generator=torch.Generator().manual_seed(1))
    field = (100.0, 0.0)
    whole = clean(t2i, noise, Zero(motion_field=field, t0=T0, t1=T1))
    for together in (2, 4):
        parts = clean(t2i, noise, Zero(motion_field=field, t0=T0, t1=T1, frames_together=together))
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)


def test_one_frame_is_the_image_models_own_picture(t2i: T2I) -> None:
    noise = torch.randn(1, 4, 5, 8, 8, generator=torch.Generator().manual_seed(1))
    zero = Zero(t0=T0, t1=T1)
    torch.testing.assert_close(clean(t2i, noise[:, :, :1], zero), clean(t2i, noise, zero)[:, :, :1], atol=1e-5, rtol=0)


def test_frames_see_the_first_one_alone(t2i: T2I) -> None:
    images = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    text = t2i.encode_text(["a"]).expand(3, -1, -1)
    changed = images.clone()
    changed[1] += 1

    def seen(pictures: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), attending(t2i.unet, first_frame(3)):
            return t2i.unet(pictures, 500, encoder_hidden_states=text).sample

    assert torch.equal(seen(images)[[0, 2]], seen(changed)[[0, 2]])
    changed[0] += 1
    assert not torch.allclose(seen(images)[2], seen(changed)[2], atol=1e-4)


def test_hooks_go_even_after_an_error(t2i: T2I) -> None:
    text = t2i.encode_text(["a"]).expand(3, -1, -1)
    with (
        pytest.raises(MismatchError, match="3 images do not divide into clips of 2"),
        attending(t2i.unet, first_frame(2)),
    ):
        t2i.unet(torch.zeros(3, 4, 8, 8), 1, encoder_hidden_states=text)
    assert not any(module._forward_pre_hooks for module in t2i.unet.modules())


@pytest.mark.parametrize(("t0", "t1"), [(6, 4), (-1, 4), (4, STEPS)])
def test_times_that_do_not_go_together_are_refused(t2i: T2I, t0: int, t1: int) -> None:
    with pytest.raises(ConfigError, match=f"got t0 {t0} and t1 {t1}"):
        clean(t2i, torch.zeros(1, 4, 2, 8, 8), Zero(t0=t0, t1=t1))


def test_it_stops_where_asked(t2i: T2I) -> None:
    text = t2i.encode_text(["a"])
    asked: Callable[[], bool] = iter([False, False, True]).__next__
    noise = torch.zeros(1, 4, 2, 8, 8)
    steps = text2video_zero(
        Denoiser(t2i.unet),
        sampler(),
        noise,
        Guidance(text, text),
        Zero(t0=T0, t1=T1),
        num_inference_steps=STEPS,
        cancelled=asked,
    )
    with pytest.raises(Cancelled, match="after 2 of 10 steps"):
        list(steps)
