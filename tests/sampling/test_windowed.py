"""A clip denoised window by window: the same as at once where it should be, and never more than a window at once."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from stillmotion.errors import Cancelled
from stillmotion.motion import VARIANTS
from stillmotion.sampling import (
    Context,
    Course,
    Denoiser,
    Guidance,
    TravellingText,
    make_sampler,
    places,
    sample,
)
from stillmotion.seeding import frame_noise

SCHEDULE = VARIANTS["v3"].noise_schedule.scheduler_kwargs()
FRAMES = 10
CONTEXT = Context(length=4, overlap=1)


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32,),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
    ).eval()


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    return torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(4))


def last(unet: UNet2DConditionModel, guidance: Guidance, frames: int = FRAMES, **options: object) -> torch.Tensor:
    noise = frame_noise(3, range(frames), (4, 8, 8))
    sampler = make_sampler("ddim", SCHEDULE, "epsilon")
    *_, step = sample(Denoiser(unet), sampler, noise, guidance, num_inference_steps=2, course=Course(**options))
    assert step.is_whole
    return step.latents


@pytest.mark.parametrize("schedule", ["static", "uniform", "looped"])
def test_a_clip_that_fits_is_the_same_to_the_bit(unet: UNet2DConditionModel, rows: torch.Tensor, schedule: str) -> None:
    guidance = Guidance(rows[:1], rows[1:2], 3.0)
    plain = last(unet, guidance, 4)
    assert torch.equal(plain, last(unet, guidance, 4, context=Context(schedule=schedule, length=4)))
    assert torch.equal(plain, last(unet, guidance, 4, context=Context(schedule=schedule, length=9)))


@pytest.mark.parametrize("schedule", ["static", "uniform", "looped"])
@pytest.mark.parametrize("fusion", ["flat", "pyramid", "overlap_linear"])
def test_stills_are_the_same_in_windows(
    unet: UNet2DConditionModel, rows: torch.Tensor, schedule: str, fusion: str
) -> None:
    """A plain UNet sees every frame alone, so windows whose weights were wrong would show."""
    text = TravellingText(rows[:2], places([0, FRAMES - 1], FRAMES))
    guidance = Guidance(text, rows[2:], tuple(1 + 0.5 * frame for frame in range(FRAMES)))
    context = Context(schedule=schedule, length=4, overlap=1, fusion=fusion)
    torch.testing.assert_close(last(unet, guidance, context=context), last(unet, guidance), rtol=1e-4, atol=1e-4)


def test_a_closed_clip_of_one_window_comes_back_in_order(unet: UNet2DConditionModel, rows: torch.Tensor) -> None:
    guidance = Guidance(TravellingText(rows[:2], places([0, 3], 6)), rows[2:], 2.0)
    context = Context(schedule="looped", closed=True, length=8)
    torch.testing.assert_close(last(unet, guidance, 6, context=context), last(unet, guidance, 6), rtol=1e-4, atol=1e-4)


def test_what_travels_is_each_frame_s_own(unet: UNet2DConditionModel, rows: torch.Tensor) -> None:
    text = TravellingText(rows[:2], places([0, 2], 3))
    together = last(unet, Guidance(text, rows[2:], (1.0, 2.0, 4.0)), 3)
    latents, denoiser = frame_noise(3, range(3), (4, 8, 8)), Denoiser(unet)
    with torch.no_grad():
        for frame, scale in enumerate((1.0, 2.0, 4.0)):
            alone = denoiser.guided(
                latents[:, :, [frame]], torch.tensor(500), Guidance(text.rows([frame]), rows[2:], scale)
            )
            clip = denoiser.guided(latents, torch.tensor(500), Guidance(text, rows[2:], (1.0, 2.0, 4.0)))
            torch.testing.assert_close(clip[:, :, [frame]], alone, rtol=1e-4, atol=1e-4)
    assert torch.isfinite(together).all()


def test_rows_per_frame_are_those_of_the_window(unet: UNet2DConditionModel, rows: torch.Tensor) -> None:
    """Two clips with a row for each of three frames: a window takes its own."""
    every = torch.arange(6.0).view(6, 1, 1).expand(6, 2, 4)
    settled = Guidance(every, rows[2:].expand(2, -1, -1)[:, :2, :4], (1.0, 2.0, 3.0)).at([2, 0], 2)
    assert settled.text.tokens[:, 0, 0].tolist() == [2, 0, 5, 3]
    assert len(settled.empty) == 4 and settled.scale.flatten().tolist() == [3, 1]
    assert Guidance(every, every, (1.0, 5.0, 5.0)).at([1, 2], 2).scale == 5.0


def test_the_unet_sees_a_window_and_controls_which(unet: UNet2DConditionModel, rows: torch.Tensor) -> None:
    sizes, seen, looked = [], [], []

    class Watching:
        def __call__(self, *said: object) -> None:
            seen.append(list(said[-1].frames))

    handle = unet.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    steps = list(
        sample(
            Denoiser(unet, [Watching()]),
            make_sampler("ddim", SCHEDULE, "epsilon"),
            frame_noise(3, range(FRAMES), (4, 8, 8)),
            Guidance(rows[:1], rows[1:2], 1.0),
            num_inference_steps=2,
            course=Course(context=CONTEXT, look=lambda frames, step: looked.append((list(frames), step))),
        )
    )
    handle.remove()
    windows = [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert seen == windows * 2 and sizes == [4] * 6
    assert looked == [(window, step) for step in range(2) for window in windows]
    assert [(s.index, s.window, s.windows, s.is_whole) for s in steps[:3]] == [
        (1, 1, 3, False), (1, 2, 3, False), (1, 3, 3, True),
    ]  # fmt: skip
    assert len(steps) == 6


def test_half_precision_is_added_up_in_float32(unet: UNet2DConditionModel, rows: torch.Tensor) -> None:
    """Latents in bfloat16 whose predictions all agree come out as if there had been no windows."""
    noise = frame_noise(3, range(FRAMES), (4, 8, 8)).bfloat16()
    ends = []
    for context in (None, Context(length=4, overlap=3)):
        sampler = make_sampler("ddim", SCHEDULE, "epsilon")
        guidance = Guidance(rows[:1], rows[1:2])
        *_, step = sample(
            Denoiser(unet), sampler, noise, guidance, num_inference_steps=1, course=Course(context=context)
        )
        ends.append(step.latents.float())
    assert (ends[0] - ends[1]).abs().max() <= 2**-6 * ends[0].abs().max()


def test_it_stops_between_windows(unet: UNet2DConditionModel, rows: torch.Tensor) -> None:
    asked = iter([False, False, True])
    steps = sample(
        Denoiser(unet),
        make_sampler("ddim", SCHEDULE, "epsilon"),
        frame_noise(3, range(FRAMES), (4, 8, 8)),
        Guidance(rows[:1], rows[1:2]),
        num_inference_steps=3,
        course=Course(context=CONTEXT),
        cancelled=lambda: next(asked),
    )
    assert [next(steps).window, next(steps).window] == [1, 2]
    with pytest.raises(Cancelled, match="after 0 of 3"):
        next(steps)
