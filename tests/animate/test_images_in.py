"""Pictures and videos that a clip begins with or is drawn from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stillmotion.animate import AnimateConfig, Session, animate, make_plan, replay
from stillmotion.animate.inputs import Start
from stillmotion.animate.steering import encode, latents_of_start
from stillmotion.data import fit, write_clip
from stillmotion.errors import ConfigError, FileError, MismatchError
from stillmotion.t2i import T2I, load_t2i

Job = Callable[..., AnimateConfig]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two pictures of the clip's size: noise of one kind and another."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, name in enumerate(("first.png", "last.png")):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(folder / name)
    return folder / "first.png", folder / "last.png"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five frames, each of one grey."""
    frames = np.repeat(np.arange(0, 250, 50, dtype=np.uint8), 64 * 64 * 3).reshape(5, 64, 64, 3)
    return write_clip(frames, tmp_path_factory.mktemp("video") / "in.png", 8.0, kind="png").path


@pytest.fixture(scope="module")
def t2i(tiny_model: Path) -> T2I:
    return load_t2i(tiny_model)


def start_of(config: AnimateConfig) -> Start:
    found = make_plan(config).inputs.start
    assert found is not None
    return found


def latents(config: AnimateConfig, t2i: T2I, chunk: int = 3) -> torch.Tensor:
    return latents_of_start(start_of(config), t2i, 64, 64, config.num_frames, chunk)


def test_a_picture_s_latents_are_where_frames_begin(job: Job, t2i: T2I, pictures: tuple[Path, Path]) -> None:
    own = [encode(t2i, fit(np.array(Image.open(path))[None], 64, 64))[0] for path in pictures]
    alone = latents(job(image=pictures[0]), t2i)
    assert alone.shape == (1, 4, 4, 8, 8) and all(torch.equal(alone[0, :, i], own[0]) for i in range(4))
    both = latents(job(image=pictures[0], last_image=pictures[1]), t2i)
    for index in range(4):
        torch.testing.assert_close(both[0, :, index], torch.lerp(*own, index / 3), rtol=1e-5, atol=1e-5)


def test_a_video_s_frames_are_encoded_in_chunks_and_cut_to_the_clip(job: Job, t2i: T2I, video: Path) -> None:
    whole, pieces = (latents(job(video=video), t2i, chunk) for chunk in (8, 1))
    torch.testing.assert_close(whole, pieces, rtol=1e-4, atol=1e-5)
    grey = encode(t2i, torch.full((1, 3, 64, 64), 150 / 127.5 - 1))[0]
    torch.testing.assert_close(whole[0, :, 3], grey, rtol=1e-4, atol=1e-5)


def test_pictures_stand_for_a_video_s_ends(job: Job, t2i: T2I, video: Path, pictures: tuple[Path, Path]) -> None:
    plain = latents(job(video=video), t2i)
    mixed = latents(job(video=video, image=pictures[0], last_image=pictures[1]), t2i)
    assert torch.equal(mixed[:, :, 1:3], plain[:, :, 1:3])
    first, last = (latents(job(image=path), t2i)[:, :, 0] for path in pictures)
    assert torch.equal(mixed[:, :, 0], first) and torch.equal(mixed[:, :, 3], last)


def test_less_denoising_stays_nearer_to_the_video(job: Job, t2i: T2I, video: Path) -> None:
    session, clean = Session(), latents(job(video=video), t2i)
    kept = t2i.decode(clean[0].transpose(0, 1)).permute(0, 2, 3, 1).add(1).mul(127.5).numpy()
    clips = [
        animate(job(video=video, denoise=share, num_inference_steps=4, guidance_scale=1), session=session)
        for share in (0.25, 1.0)
    ]
    far = [np.abs(clip.frames - kept).mean() for clip in clips]
    assert far[0] < far[1] and [clip.run["config"]["denoise"] for clip in clips] == [0.25, 1.0]
    assert [len(clip.frames) for clip in clips] == [4, 4]


def test_the_record_holds_it_and_replay_wants_the_same(job: Job, pictures: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(pictures[0].read_bytes())
    clip = animate(job(image=tmp_path / "mine.png", output_dir=tmp_path / "out", formats="png"))
    assert clip.run["config"]["denoise"] == 0.75
    assert [file["role"] for file in clip.run["models"]].count("image") == 1
    assert np.array_equal(replay(clip.folder).frames, clip.frames)
    (tmp_path / "mine.png").write_bytes(pictures[1].read_bytes())
    with pytest.raises(MismatchError, match=r"image/mine\.png"):
        replay(clip.folder)


def test_a_sparse_control_takes_the_pictures(
    job: Job, control_file: Callable[[str], Path], pictures: tuple[Path, Path]
) -> None:
    rgb, scribble = control_file("sparse_rgb"), control_file("sparse_scribble")
    plan = make_plan(job(controls=[rgb], image=pictures[0], last_image=pictures[1]))
    (control,) = plan.inputs.controls
    assert control.indices == (0, 3) and [shot.footage.path for shot in control.shots] == list(pictures)
    assert plan.inputs.start is None and plan.inputs.notes == () and plan.config.denoise is None
    # Asked for, both happen; without strength, or for sketches, the frames begin at the picture, and that is said.
    assert make_plan(job(controls=[rgb], image=pictures[0], denoise=0.9)).inputs.start is not None
    for controls in ([f"{rgb}:0"], [f"{scribble}={pictures[1]}"], []):
        plan = make_plan(job(controls=controls, image=pictures[0]))
        assert plan.inputs.start is not None and "without a SparseCtrl RGB" in plan.notes[-1]
    assert make_plan(job(controls=[f"{rgb}@frames:2"], image=pictures[0])).inputs.controls[0].indices == (2,)


def test_controls_without_a_source_read_the_job_s_own(
    job: Job, control_file: Callable[[str], Path], pictures: tuple[Path, Path], video: Path
) -> None:
    controls = [control_file("controlnet"), control_file("ip_adapter")]
    plan = make_plan(job(controls=controls, image=pictures[0], video=video))
    seen = [control.shots[0].footage.path for control in plan.inputs.controls]
    assert seen == [video, pictures[0]]


def test_what_is_refused(job: Job, pictures: tuple[Path, Path], video: Path, tmp_path: Path) -> None:
    (tmp_path / "page.png").write_text("<html></html>")
    for changes, kind, message in [
        ({"video": video, "num_frames": 8}, FileError, "video: .* has 5 frames, but the clip has 8; .*num_frames 5"),
        ({"image": tmp_path / "no.png"}, FileError, "image: .*no.png: there is no such file"),
        ({"image": tmp_path / "page.png"}, FileError, "image: .*page.png: expected a picture"),
        ({"image": video}, ConfigError, "image: .* is a folder, expected a picture; give it as video"),
        ({"video": pictures[0]}, ConfigError, "video: .* is a picture, expected a video or a folder; give it as image"),
        ({"denoise": 0.5}, ConfigError, "denoise: there is nothing to draw anew; give video or image"),
        ({"video": video, "denoise": 0.1}, ConfigError, "denoise: 0.1 of 2 steps is less than one step"),
        ({"image": pictures[0], "last_image": pictures[1], "num_frames": 1}, ConfigError, "last_image: a clip of one"),
    ]:
        with pytest.raises(kind, match=message):
            make_plan(job(**changes))
