"""The second pass, which makes a clip larger, and frames in between, through whole jobs on tiny models."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av.filter
import numpy as np
import pytest
import torch
from PIL import Image
from tests.t2i.sdxl_models import WIDTHS, make_pipe

import stillmotion as sm
from stillmotion.animate import AnimateConfig, Finished, Session, StepDone, animation, make_plan, plan_resume, run
from stillmotion.animate.clip_work import decoded
from stillmotion.animate.outline import Outline
from stillmotion.animate.second_pass import enlarged
from stillmotion.animate.steering import LoadedControl
from stillmotion.animate.upscaling import larger, larger_size
from stillmotion.checkpoints.files import read_header
from stillmotion.data import read_clip, write_clip
from stillmotion.errors import Cancelled, ConfigError
from stillmotion.sampling import Control, Text
from stillmotion.t2i import T2I, load_t2i

Job = Callable[..., AnimateConfig]
LARGE = {"upscale": 1.5, "num_frames": 3, "width": 32, "height": 32, "num_inference_steps": 2}
_session = Session()


def frames(config: AnimateConfig) -> np.ndarray:
    return sm.animate(config, session=_session).frames


def test_upscale_1_is_the_clip_of_one_pass_and_2_enlarges_it(job: Job) -> None:
    plain = frames(job(width=32, height=32))
    assert np.array_equal(frames(job(width=32, height=32, upscale=1, interpolate=1)), plain)
    events = list(animation(job(width=32, height=32, upscale=2, upscale_denoise=0.5), session=_session))
    steps = [(event.step, event.total) for event in events if isinstance(event, StepDone)]
    assert steps == [(1, 3), (2, 3), (3, 3)]
    finished = events[-1]
    assert isinstance(finished, Finished)
    clip = finished.clip
    assert clip.frames.shape == (4, 64, 64, 3)
    told = clip.run["config"]
    assert (told["width"], told["upscale"], told["upscale_denoise"]) == (32, 2.0, 0.5)
    assert "Hires upscale: 2" in clip.run["parameters"]
    again = AnimateConfig.from_dict(json.loads(json.dumps(told)))
    assert np.array_equal(frames(again), clip.frames)


def test_less_denoising_stays_nearer_to_the_first_pass(job: Job) -> None:
    base = {**LARGE, "num_inference_steps": 4, "guidance_scale": 1, "upscale": 2}
    first = frames(job(**{**base, "upscale": 1}))
    resized = np.stack([np.asarray(Image.fromarray(one).resize((64, 64), Image.Resampling.BICUBIC)) for one in first])
    far = [np.abs(frames(job(**base, upscale_denoise=share)).astype(float) - resized).mean() for share in (0.25, 1.0)]
    assert far[0] < far[1]


def test_the_second_pass_is_the_video_s_way_with_a_seed_of_its_own(job: Job, tmp_path: Path) -> None:
    """What `--video` makes of the first pass's frames is what the second pass makes of them, but for the rounding."""
    config = job(**{**LARGE, "upscale": 2, "dtype": "float32"})
    plan = make_plan(config)
    whole = frames(config).astype(float)
    first = frames(config.replace(upscale=1))
    big = torch.nn.functional.interpolate(
        torch.from_numpy(first).permute(0, 3, 1, 2).float() / 127.5 - 1, (64, 64), mode="bicubic", antialias=True
    )
    pixels = ((big.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    video = write_clip(pixels, tmp_path / "first", 8.0, kind="png").path
    job_of_it = larger(plan.config.replace(output_dir=None)).replace(video=video)
    assert job_of_it.seed != config.seed
    near = np.abs(frames(job_of_it).astype(float) - whole).mean()
    other = np.abs(frames(job_of_it.replace(seed=config.seed)).astype(float) - whole).mean()
    assert near < 0.5 and other > 4 * near


def test_frames_are_enlarged_in_chunks(job: Job, tiny_model: Path) -> None:
    t2i, latents = load_t2i(tiny_model), torch.randn(1, 4, 5, 4, 4)
    settled = larger(make_plan(job(width=32, height=32, upscale=1.5)).config)
    parts, whole = (enlarged(latents, settled.replace(decode_chunk=n), t2i, lambda: False) for n in (2, 5))
    assert whole.shape == (1, 4, 5, 6, 6) and whole.device.type == "cpu"
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)
    assert decoded(t2i, whole).shape == (5, 3, 48, 48)
    calls = iter([False, True])
    with pytest.raises(Cancelled, match="Stopped between the passes, after 2 of 5 frames were enlarged"):
        enlarged(latents, settled.replace(decode_chunk=2), t2i, lambda: next(calls))


@pytest.mark.parametrize(
    ("how", "after"),
    [
        # The first pass's last step, the second pass in windows, FreeInit's second turn, and a sampler that warms up.
        ({"sampler": "unipc"}, 2),
        ({"sampler": "unipc", "num_frames": 4, "context_length": 3, "upscale_denoise": 1.0}, 3),
        ({"freeinit_passes": 2, "sampler": "dpm++_sde", "dtype": "bfloat16"}, 3),
        ({"sampler": "pndm", "num_inference_steps": 3, "upscale_denoise": 0.7}, 6),
    ],
    ids=str,
)
def test_a_clip_goes_on_in_either_pass(job: Job, tmp_path: Path, how: dict[str, Any], after: int) -> None:
    config = job(**{**LARGE, **how})
    whole = frames(config)
    reached = threading.Event()
    sizes = {}

    def watch() -> None:
        for event in animation(
            config.replace(output_dir=tmp_path, state_every=0.0, formats=("png",)),
            cancel=reached.is_set,
            session=_session,
        ):
            if isinstance(event, StepDone) and event.step == after:
                sizes[event.step] = event.total
                reached.set()

    with pytest.raises(Cancelled, match="goes on from there"):
        watch()
    (folder,) = tmp_path.glob("*.unfinished")
    _, said = read_header(folder / "state.safetensors")
    assert (int(said["step"]), int(said["total"])) == (after, sizes[after])
    (clip,) = [event.clip for event in run(plan_resume(folder), session=_session) if isinstance(event, Finished)]
    assert np.array_equal(clip.frames, whole) and clip.run["resumed_after_step"] == after
    assert list(tmp_path.iterdir()) == [clip.folder]


def test_controls_windows_and_prompts_reach_the_second_pass(
    job: Job, control_file: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), np.uint8)
    video = write_clip(pixels, tmp_path / "in", 8.0, kind="png").path
    how = {**LARGE, "num_frames": 4, "context_length": 3, "prompt_map": {3: "a blue box"}}
    events = list(animation(job(**how), session=_session))
    windows = [(event.step, event.windows) for event in events if isinstance(event, sm.WindowDone)]
    assert windows == [(1, 2), (2, 2), (3, 2)]
    finished, sizes, on_clip = events[-1], [], LoadedControl.on_clip

    def seen(self: LoadedControl, width: int, height: int) -> Control:
        sizes.append((width, height))
        return on_clip(self, width, height)

    monkeypatch.setattr(LoadedControl, "on_clip", seen)
    controlled = frames(job(**how, controls=[f"{control_file('controlnet')}={video}:2"]))
    assert isinstance(finished, Finished) and sizes == [(32, 32), (48, 48)]
    assert finished.clip.frames.shape == controlled.shape == (4, 48, 48, 3)
    assert not np.array_equal(finished.clip.frames, controlled)


def test_the_plan_counts_it(job: Job) -> None:
    outline = Outline.of(job(width=32, height=48, num_inference_steps=10, upscale=1.6, upscale_denoise=0.3))
    assert (outline.passes, outline.second_passes) == (13, 3)
    assert outline.notes[-1] == "upscale: 51.2x76.8 is rounded to 48x80, multiples of 8"
    told = dict(outline.facts())
    assert told["upscale"].startswith(
        "to 48x80: 3 more UNet passes in 3 steps, each of 2.5 times the pixels; in all what 18 "
    )
    assert "interpolate" not in told and larger_size(outline.config) == (48, 80)
    told = dict(Outline.of(job(upscale=2, interpolate=4)).facts())
    assert told["upscale"].startswith("to 2 times the model's size: 1 more UNet pass in 1 step, each of 4 times")
    assert told["interpolate"] == "16 frames at 32 fps, 3 between each two"
    assert "upscale" not in dict(Outline.of(job()).facts())


def test_the_plan_counts_only_the_steps_that_draw_a_video_anew(job: Job, tmp_path: Path) -> None:
    video = write_clip(np.zeros((4, 32, 32, 3), np.uint8), tmp_path / "in.gif", 8.0).path
    outline = Outline.of(job(video=video, denoise=0.3, num_inference_steps=10, width=32, height=32))
    assert (outline.passes, outline.second_passes) == (3, 0)


def test_frames_in_between_go_into_every_file(job: Job, tmp_path: Path) -> None:
    plain = frames(job(dtype="float32"))
    how = {
        "dtype": "float32",
        "output_dir": tmp_path,
        "formats": ["mp4", "gif", "png", "webp"],
        "interpolate": 3,
        "decode_chunk": 1,
    }
    clip = sm.animate(job(**how), session=_session)
    assert clip.fps == 24 and clip.frames.shape == (12, 64, 64, 3)
    assert np.abs(clip.frames[::3].astype(int) - plain).max() <= 1  # one at a time, the VAE rounds otherwise
    assert [(file.num_frames, round(file.num_frames / file.fps, 2)) for file in clip.outputs] == [(12, 0.5)] * 4
    assert clip.folder is not None
    assert np.array_equal(read_clip(clip.folder / "clip-frames"), clip.frames)
    with Image.open(clip.folder / "contact-sheet.png") as sheet:
        assert sheet.size == (4 * 66 + 2, 3 * 66 + 2)
    assert "interpolate" in clip.run["timings"]
    assert np.array_equal(sm.replay(clip.folder / "clip.gif", session=_session).frames, clip.frames)
    loop = frames(job(interpolate=2, loop="closed", upscale=1.5, width=32, height=32))
    assert loop.shape == (8, 48, 48, 3) and not np.array_equal(loop[-1], loop[-2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"upscale": 0.5}, "upscale: expected a number from 1 to 4"),
        ({"upscale": 5}, "upscale: expected a number from 1 to 4"),
        ({"upscale_denoise": 0.5}, "upscale_denoise: there is no second pass; give upscale too"),
        ({"upscale": 2, "upscale_denoise": 0.1}, "upscale_denoise: 0.1 of 2 steps is less than one step"),
        ({"upscale": 4, "width": 4096, "height": 64}, "upscale: 4 times 4096x64 is 16384x256; expected at most 8192"),
        ({"interpolate": 0}, "interpolate: expected an integer from 1 to 8"),
        ({"interpolate": 2, "num_frames": 1}, "interpolate: a clip of one frame has nothing between frames"),
        ({"interpolate": 8, "fps": 60}, "interpolate: 8 times 60 fps is 480 frames per second; expected at most 240"),
    ],
    ids=str,
)
def test_what_is_refused(job: Job, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(job(**changes))


def test_an_ffmpeg_without_the_filter_is_named_before_anything(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av.filter, "filters_available", set())
    assert make_plan(job()).config.interpolate == 1
    with pytest.raises(ConfigError, match=r"interpolate: .*minterpolate, which is not in the FFmpeg"):
        make_plan(job(interpolate=2))


def test_few_steps_draw_at_least_one_anew(job: Job) -> None:
    assert make_plan(job(upscale=2, num_inference_steps=1)).config.upscale_denoise == 1.0
    assert make_plan(job(upscale=2, num_inference_steps=8)).config.upscale_denoise == 0.5
    assert make_plan(job()).config.upscale_denoise is None


def test_sdxl_is_told_the_larger_size(
    motion_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pipe().save_pretrained(tmp_path)
    models = {"model": tmp_path, "motion": motion_file("sdxl_beta", WIDTHS), "device": "cpu"}
    told, text = [], T2I.text

    def said(self: T2I, *prompts: Any, **sizes: int) -> Text:
        told.append((sizes["height"], sizes["width"]))
        return text(self, *prompts, **sizes)

    monkeypatch.setattr(T2I, "text", said)
    how = {"num_frames": 2, "num_inference_steps": 1, "seed": 1, "width": 32, "height": 32, "upscale": 1.5}
    made = frames(AnimateConfig(prompt="a red ball", **models, **how))
    assert told == [(32, 32), (48, 48)] and made.shape == (2, 48, 48, 3)
