"""A loop that goes on after a step ends in the same numbers, to the bit, whatever its sampler remembers."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from stillmotion.errors import MismatchError
from stillmotion.motion import VARIANTS
from stillmotion.sampling import SAMPLERS, Context, Course, Denoiser, Guidance, Step, make_sampler, sample
from stillmotion.seeding import frame_noise

SCHEDULE = VARIANTS["v3"].noise_schedule.scheduler_kwargs()
WINDOWED = Course(context=Context(schedule="uniform", length=2))
REDRAWN = Course(start_from=frame_noise(5, range(3), (4, 8, 8)), denoise=0.75)


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    """Return a tiny image model."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()


def sampled(unet: UNet2DConditionModel, name: str, course: Course, steps: int = 6) -> list[Step]:
    """Return the whole steps of a clip of three frames."""
    text = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(4))
    noise, sampler = frame_noise(3, range(3), (4, 8, 8)), make_sampler(name, SCHEDULE, "epsilon")
    guidance = Guidance(text[:1], text[1:], 7.5)
    found = sample(Denoiser(unet), sampler, noise, guidance, num_inference_steps=steps, seed=3, course=course)
    return [step for step in found if step.is_whole]


@pytest.mark.parametrize(
    ("name", "course"),
    [(name, Course(eta=0.5)) for name in SAMPLERS]
    + [(name, course) for name in ("dpm++", "unipc", "pndm") for course in (WINDOWED, REDRAWN)],
    ids=str,
)
def test_every_sampler_goes_on_as_if_it_had_never_stopped(
    unet: UNet2DConditionModel, name: str, course: Course
) -> None:
    whole = sampled(unet, name, course)
    for stop in (3, len(whole)):
        left = sampled(unet, name, replace(course, after=whole[stop - 1]))
        assert [step.index for step in left] == list(range(stop, len(whole) + 1))
        assert all(torch.equal(one.latents, other.latents) for one, other in zip(left, whole[stop - 1 :], strict=True))


@pytest.mark.parametrize("name", ["dpm++", "unipc", "pndm"])
def test_a_sampler_of_several_steps_needs_its_memory(unet: UNet2DConditionModel, name: str) -> None:
    whole = sampled(unet, name, Course())
    forgotten = sampled(unet, name, Course(after=replace(whole[2], memory={})))
    assert not torch.equal(forgotten[-1].latents, whole[-1].latents)


def test_what_a_sampler_remembers_are_numbers_and_tensors(unet: UNet2DConditionModel) -> None:
    def plain(value: Any) -> bool:
        return value is None or isinstance(value, (bool, int, float, torch.Tensor))

    for name in SAMPLERS:
        memory = sampled(unet, name, Course(), steps=3)[1].memory
        flat = [one for value in memory.values() for one in (value if isinstance(value, list) else [value])]
        assert all(map(plain, flat)), name
    assert sampled(unet, "ddim", Course(), steps=4)[1].memory == {}
    many = sampled(unet, "dpm++", Course(), steps=4)[1].memory
    assert sum(isinstance(one, torch.Tensor) for one in many["model_outputs"]) == 2


def test_a_step_of_another_clip_is_refused(unet: UNet2DConditionModel) -> None:
    step = sampled(unet, "ddim", Course())[2]
    with pytest.raises(MismatchError, match=r"Step 3 of 6 .* is of another clip: this one has 4 steps"):
        sampled(unet, "ddim", Course(after=step), steps=4)
    short = Step(index=3, total=6, latents=step.latents[:, :, :2])
    with pytest.raises(MismatchError, match=r"latents \(1, 4, 2, 8, 8\) is of another clip"):
        sampled(unet, "ddim", Course(after=short))
