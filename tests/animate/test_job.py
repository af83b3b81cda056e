"""The whole job on tiny random models: what it yields, what it writes, and what never changes."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import stillmotion as sm
from stillmotion.animate import (
    AnimateConfig,
    Decoding,
    Event,
    Finished,
    Loaded,
    Session,
    Started,
    StepDone,
    animation,
)
from stillmotion.animate.plan import Plan, make_plan
from stillmotion.animate.session import Models
from stillmotion.data import probe, read_clip, read_metadata
from stillmotion.errors import Cancelled, ConfigError, StillmotionError
from stillmotion.t2i import T2I

Job = Callable[..., AnimateConfig]


_session = Session()


def make(config: AnimateConfig, **options: Any) -> sm.Clip:
    """`sm.animate` with the models kept between tests."""
    return sm.animate(config, session=_session, **options)


def clips(config: AnimateConfig, **options: Any) -> list[sm.Clip]:
    return [event.clip for event in animation(config, session=_session, **options) if isinstance(event, Finished)]


def test_a_clip_stays_in_memory_and_can_be_saved(job: Job, tmp_path: Path) -> None:
    clip = sm.animate(job())
    assert clip.frames.shape == (4, 64, 64, 3) and clip.frames.dtype == np.uint8
    assert (clip.fps, clip.seed, clip.folder) == (8.0, 7, None)
    path = clip.save(tmp_path / "ball.mp4")
    assert probe(path).num_frames == 4
    assert read_metadata(path)["config"]["prompt"] == "a red ball, rolling right"
    clip.save(tmp_path / "frames")
    assert np.array_equal(read_clip(tmp_path / "frames"), clip.frames)
    assert "4 frames of 64x64" in repr(clip)


def test_events_come_in_order(job: Job, tmp_path: Path) -> None:
    events = list(animation(job(output_dir=tmp_path, num_clips=2, decode_chunk=3)))
    kinds = [type(event) for event in events]
    assert kinds == [Started, Loaded, *([StepDone] * 2 + [Decoding] * 2 + [Finished]) * 2]
    started, loaded = events[:2]
    assert isinstance(started, Started) and started.device == "cpu" and started.dtype in ("float32", "bfloat16")
    assert isinstance(loaded, Loaded) and (loaded.config.width, loaded.config.height) == (64, 64)
    steps = [(event.clip, event.step, event.total) for event in events if isinstance(event, StepDone)]
    assert steps == [(0, 1, 2), (0, 2, 2), (1, 1, 2), (1, 2, 2)]
    assert [event.frames for event in events if isinstance(event, Decoding)] == [3, 4, 3, 4]


def test_a_run_folder_holds_everything(job: Job, tmp_path: Path) -> None:
    formats = ("mp4", "webm", "gif", "webp", "png")
    clip = make(job(output_dir=tmp_path / "outputs", formats=formats, width=72, height=56))
    assert clip.folder is not None and clip.folder.parent == tmp_path / "outputs"
    names = {"clip.mp4", "clip.webm", "clip.gif", "clip.webp", "clip-frames", "contact-sheet.png", "run.json"}
    assert {entry.name for entry in clip.folder.iterdir()} == names
    assert "a-red-ball-rolling-right-7" in clip.folder.name
    assert [entry.name for entry in (tmp_path / "outputs").iterdir()] == [clip.folder.name]
    assert np.array_equal(read_clip(clip.folder / "clip-frames"), clip.frames)
    with Image.open(clip.folder / "contact-sheet.png") as sheet:
        assert sheet.size == (2 * 74 + 2, 2 * 58 + 2)
    assert [output.path.exists() for output in clip.outputs] == [True] * 5
    for name in ("clip.mp4", "clip.webm", "clip.gif", "clip.webp", "clip-frames"):
        assert read_metadata(clip.folder / name)["seed"] == "7"


def test_run_json_says_how_it_was_made(job: Job, tmp_path: Path) -> None:
    config = job(output_dir=tmp_path, seed=2**70, guidance_scale=None, formats=("gif",))
    clip = make(config)
    assert clip.folder is not None
    found = json.loads((clip.folder / "run.json").read_text(encoding="utf-8"))
    assert found["schema"] == 1 and found["seed"] == found["config"]["seed"] == str(2**70)
    settled = found["config"]
    assert (settled["width"], settled["height"], settled["guidance_scale"]) == (64, 64, 7.5)
    assert settled["device"] == "cpu" and settled["dtype"] == found["dtype"] != "auto"
    files = {file["role"]: file for file in found["models"]}
    assert {"model", "motion"} <= files.keys()
    assert all(len(file["sha256"]) == 64 for file in found["models"])
    assert {"load", "text", "sample", "decode", "write"} <= found["timings"].keys()
    assert found["memory"]["peak_rss_bytes"] > 10**7
    assert {"torch", "diffusers", "python"} <= found["versions"].keys()
    (output,) = found["outputs"]
    assert (output["path"], output["num_frames"], output["fps"]) == ("clip.gif", 4, probe(clip.folder / "clip.gif").fps)
    assert len(output["sha256"]) == 64
    assert AnimateConfig.from_dict(settled).seed == 2**70


def test_the_seed_decides(job: Job) -> None:
    first, again, other = (make(job(seed=seed)).frames for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_seed_alone_equals_that_seed_in_a_batch(job: Job) -> None:
    batch = clips(job(seed=6, num_clips=3))
    assert [clip.seed for clip in batch] == [6, 7, 8]
    assert np.array_equal(batch[1].frames, make(job(seed=7)).frames)


def test_motion_moves(job: Job) -> None:
    """Frames share one text and differ by noise alone; without motion frame 0 would not know of the others."""
    short, long = (make(job(num_frames=count)).frames for count in (3, 4))
    assert not np.array_equal(short[0], long[0])


def test_a_drawn_seed_is_recorded(job: Job) -> None:
    one, two = make(job(seed=None)), make(job(seed=None))
    assert one.seed != two.seed
    assert np.array_equal(one.frames, make(job(seed=one.seed)).frames)


def test_chunks_do_not_change_the_clip(job: Job) -> None:
    by_one, by_three = (make(job(decode_chunk=chunk, dtype="float32")).frames.astype(int) for chunk in (1, 3))
    assert np.abs(by_one - by_three).max() <= 1


def test_frames_need_not_be_kept(job: Job, tmp_path: Path) -> None:
    (clip,) = clips(job(output_dir=tmp_path, formats=("png",)), keep_frames=False)
    assert len(clip.frames) == 0 and clip.folder is not None
    assert np.array_equal(read_clip(clip.folder / "clip-frames"), make(job()).frames)
    with pytest.raises(sm.FileError, match="were not kept"):
        clip.save(tmp_path / "ball.mp4")
    with pytest.raises(ConfigError, match="output_dir: expected a folder"):
        animation(job(), keep_frames=False)


def test_runs_never_overwrite_each_other(job: Job, tmp_path: Path) -> None:
    folders = {make(job(output_dir=tmp_path, formats=())).folder for _ in range(3)}
    assert len(folders) == 3 and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("kind", [StepDone, Decoding])
def test_cancelling_keeps_what_is_finished_and_nothing_else(job: Job, tmp_path: Path, kind: type[Event]) -> None:
    seen: list[Event] = []

    def watch(events: Iterator[Event]) -> None:
        for event in events:
            seen.append(event)  # noqa: PERF402  # `cancel` looks at it meanwhile

    def cancel() -> bool:
        return any(isinstance(event, kind) and event.clip == 1 for event in seen)

    with pytest.raises(Cancelled, match="Stopped after 1 of"):
        watch(animation(job(output_dir=tmp_path, num_clips=3, decode_chunk=1), cancel=cancel))
    (finished,) = [event.clip for event in seen if isinstance(event, Finished)]
    assert list(tmp_path.iterdir()) == [finished.folder]
    assert np.array_equal(read_clip(tmp_path / str(finished.folder) / "clip.gif").shape, (4, 64, 64, 3))


def test_leaving_early_leaves_nothing(job: Job, tmp_path: Path) -> None:
    session = Session()
    folder = tmp_path / "outputs"
    for count in range(1, 8):
        events = animation(job(output_dir=folder, decode_chunk=1), session=session)
        list(islice(events, count))
        events.close()  # type: ignore[attr-defined]  # what leaving a `for` loop does
        assert not folder.exists()

    def interrupted(event: Event) -> None:
        if isinstance(event, Decoding):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sm.animate(job(output_dir=folder), progress=interrupted, session=session)
    # The models are whole again: the next job gives what a fresh one gives.
    assert np.array_equal(sm.animate(job(), session=session).frames, sm.animate(job()).frames)


def test_a_session_loads_once(job: Job) -> None:
    session = Session()
    sm.animate(job(), session=session)
    events = list(animation(job(prompt="a blue ball", seed=9), session=session))
    loaded = next(event for event in events if isinstance(event, Loaded))
    assert loaded.seconds < 0.2
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert np.array_equal(finished.clip.frames, sm.animate(job(prompt="a blue ball", seed=9)).frames)
    session.close()


def test_several_clips_are_not_dropped_silently(job: Job) -> None:
    with pytest.raises(ConfigError, match="makes one clip, got 2"):
        sm.animate(job(num_clips=2))


def test_adapters_act_by_their_strength(
    job: Job, motion_lora_file: Callable[..., Path], domain_adapter_file: Path, style_file: Path
) -> None:
    session = Session()

    def frames(**changes: Any) -> np.ndarray:
        return sm.animate(job(**changes), session=session).frames

    plain = frames()
    zoom = str(motion_lora_file("v3"))
    fields = {"motion_loras": (zoom,), "domain_adapter": str(domain_adapter_file), "loras": (str(style_file),)}
    for field, value in fields.items():
        assert not np.array_equal(frames(**{field: value}), plain), field
    everything = {"motion_loras": (f"{zoom}:0.5", f"{zoom}:-1"), "domain_adapter": f"{domain_adapter_file}:2"}
    clip = sm.animate(job(**everything, loras=(f"{style_file}:0.7",)), session=session)
    assert [clip.run["loading"], len(clip.frames)] == [["style.safetensors: 1 updates applied (unet 1)"], 4]
    files = {file["role"]: file for file in clip.run["models"]}
    assert (files["motion_loras.0"]["strength"], files["motion_loras.0"]["applied"]) == (0.5, 2 * 2 * 12)
    assert files["loras.0"]["strength"] == 0.7 and len(files["loras.0"]["sha256"]) == 64
    off = {"motion_loras": (f"{zoom}:0", f"{zoom}:0"), "domain_adapter": f"{domain_adapter_file}:0"}
    assert np.array_equal(frames(**off, loras=(f"{style_file}:0",)), plain)


def test_another_vae_decodes(job: Job, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model / "vae", tmp_path / "vae")
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["decoder.conv_out.bias"] += 0.5
    save_file(tensors, file)
    brighter = make(job(vae=tmp_path / "vae"))
    assert brighter.frames.mean() > make(job()).frames.mean() + 10
    roles = {record["role"]: record["name"] for record in brighter.run["models"]}
    assert roles["vae"] == "diffusion_pytorch_model.safetensors"


def test_half_precision_makes_a_clip_too(job: Job) -> None:
    half, whole = (make(job(dtype=dtype)).frames.astype(int) for dtype in ("bfloat16", "float32"))
    assert half.shape == whole.shape and np.abs(half - whole).mean() < 30


def test_numbers_that_overflow_are_named(job: Job, motion_file: Callable[..., Path], tmp_path: Path) -> None:
    tensors = load_file(motion_file("v3"))
    tensors["down_blocks.0.motion_modules.0.proj_in.bias"][0] = float("nan")
    save_file(tensors, tmp_path / "nan_mm.safetensors")
    with pytest.raises(StillmotionError, match=r"Step 1 of 2 gave numbers that are not finite in float32"):
        sm.animate(job(motion=tmp_path / "nan_mm.safetensors", dtype="float32", output_dir=tmp_path / "outputs"))
    assert not (tmp_path / "outputs").exists()


def test_a_vae_that_overflows_in_half_precision_is_used_in_whole(
    job: Job, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = T2I.decode

    def overflowing(self: T2I, latents: torch.Tensor) -> torch.Tensor:
        pixels = decode(self, latents)
        return pixels if self.vae.dtype is torch.float32 else pixels * float("nan")

    monkeypatch.setattr(T2I, "decode", overflowing)
    assert sm.animate(job(dtype="bfloat16")).frames.std() > 1


def test_a_module_of_convolutions_moves_clips_of_any_length(job: Job, motion_file: Callable[..., Path]) -> None:
    motion = motion_file(architecture="temporal_conv")
    assert make(job(motion=motion, variant="v3", num_frames=34)).frames.shape == (34, 64, 64, 3)


def test_a_clip_whose_models_are_called_in_turns_is_the_same(job: Job) -> None:
    class Calling(Session):
        def load(self, plan: Plan) -> Models:
            return replace(super().load(plan), called_to=plan.device)

    expected = sm.animate(job()).frames
    assert np.array_equal(sm.animate(job(), session=Calling()).frames, expected)


def test_offloading_is_for_a_gpu(job: Job) -> None:
    plan = make_plan(job(offload=True))
    assert plan.home == plan.device == torch.device("cpu")
    assert any("offload: nothing is gained on cpu" in note for note in plan.notes)


def test_offloaded_models_wait_on_the_cpu(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(sys.modules[make_plan.__module__], "choose_device", lambda _: gpu)
    plan = make_plan(job(offload=True))
    assert (plan.device, plan.home) == (gpu, torch.device("cpu"))
    models = Session().load(plan)
    assert models.called_to == gpu and models.t2i.device == torch.device("cpu")
