"""Controls from the config to the frames: what they read, that they act, that strength 0 is nothing, and the record."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stillmotion.animate import AnimateConfig, Session, animate, make_plan, replay
from stillmotion.config import ControlFile
from stillmotion.data import write_clip
from stillmotion.errors import ConfigError, FileError, MismatchError
from stillmotion.sampling import Steering

Job = Callable[..., AnimateConfig]
Controls = Callable[[str], Path]

KINDS = ["controlnet", "t2i_adapter", "sparse_rgb", "sparse_scribble", "ip_adapter"]


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture that is wider than the clip."""
    path = tmp_path_factory.mktemp("picture") / "hand.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).resize((120, 80)).save(path)
    return path


@pytest.fixture(scope="module")
def dance(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of six frames: a white square that moves."""
    frames = np.zeros((6, 64, 96, 3), np.uint8)
    for index, frame in enumerate(frames):
        frame[10:30, 10 * index : 10 * index + 20] = 255
    return write_clip(frames, tmp_path_factory.mktemp("video") / "dance.mp4", 8.0).path


@pytest.fixture(scope="module")
def session() -> Session:
    """Keeps the tiny model for all tests."""
    return Session()


def test_each_kind_acts_and_is_nothing_at_strength_0(
    job: Job, control_file: Controls, picture: Path, session: Session
) -> None:
    def frames(*controls: ControlFile) -> np.ndarray:
        return animate(job(num_inference_steps=1, num_frames=2, controls=controls), session=session).frames

    plain = frames()
    for kind in KINDS:
        control = ControlFile(path=control_file(kind), source=picture)
        assert np.abs(frames(control).astype(int) - plain).max() > 0, kind
        assert np.array_equal(frames(replace(control, strength=0.0)), plain), kind
    assert np.array_equal(frames(), plain)  # nothing of any is left in the model


def test_a_session_keeps_the_control(
    job: Job, control_file: Controls, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = import_module("stillmotion.animate.session")
    calls, load = [], home.load_control
    monkeypatch.setattr(home, "load_control", lambda *args, **kw: calls.append(args) or load(*args, **kw))
    session = Session()
    for strength in (1.0, 0.5):
        config = job(num_inference_steps=1, controls=[f"{control_file('controlnet')}={picture}:{strength}"])
        animate(config, session=session)
    assert len(calls) == 1


def test_outside_its_share_of_the_steps_it_does_not_act(
    job: Job, control_file: Controls, dance: Path, session: Session
) -> None:
    text = f"{control_file('controlnet')}={dance}"
    frames = {span: animate(job(controls=[f"{text}@{span}"]), session=session).frames for span in ("0-1", "0-0.5")}
    plain = animate(job(), session=session).frames
    assert not np.array_equal(frames["0-1"], frames["0-0.5"]) and not np.array_equal(frames["0-0.5"], plain)
    late = animate(job(controls=[f"{text}@0.9-1"]), session=session).frames  # of two steps none begins so late
    assert np.array_equal(late, plain)


def test_a_video_steers_frame_by_frame_and_canny_draws_its_edges(job: Job, control_file: Controls, dance: Path) -> None:
    pytest.importorskip("cv2")
    from stillmotion.animate.steering import LoadedControl
    from stillmotion.t2i.controls.model import ControlModel, Dosed

    class Still(Dosed):
        def steer(self, *_):
            return Steering()

    class Watcher(ControlModel):
        def control(self, condition, dose, indices):
            self.edges, self.dose, self.indices = condition, dose, indices
            return Still(dose)

    watcher = Watcher(dance, [])
    plan = make_plan(job(width=64, height=64, controls=[f"{control_file('controlnet')}={dance}:0.5@canny@0-0.5"]))
    LoadedControl(planned=plan.inputs.controls[0], model=watcher).on_clip(64, 64)
    edges = watcher.edges
    assert edges.shape == (4, 3, 64, 64) and set(edges.unique().tolist()) == {0.0, 1.0}
    assert (watcher.dose.strength, watcher.dose.start, watcher.dose.end, watcher.indices) == (0.5, 0.0, 0.5, None)
    # The clip shows the middle 64 of 96 columns, in which the square's left edge moves by 10 a frame.
    columns = [edges[index, 0, 20].nonzero().max().item() for index in (1, 2, 3)]
    assert columns[1] - columns[0] == pytest.approx(10, abs=1) and columns[2] - columns[1] == pytest.approx(10, abs=1)


def test_the_record_names_control_and_source_and_replay_wants_both(
    job: Job, control_file: Controls, picture: Path, tmp_path: Path
) -> None:
    source = tmp_path / "mine.png"
    source.write_bytes(picture.read_bytes())
    control = f"{control_file('controlnet')}={source}:0.5"
    clip = animate(job(num_inference_steps=1, output_dir=tmp_path, formats="png", controls=[control]))
    files = {file["role"]: file for file in clip.run["models"]}
    assert files["controls.0"]["strength"] == 0.5 and len(files["controls.0"]["sha256"]) == 64
    assert files["controls.0.source"]["name"] == "mine.png" and files["controls.0.source"]["kind"] == "a picture"
    assert np.array_equal(replay(clip.folder).frames, clip.frames)
    Image.new("RGB", (64, 64)).save(source)
    with pytest.raises(MismatchError, match=r"controls\.0\.source/mine\.png"):
        replay(clip.folder)


def refused(config: AnimateConfig, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make_plan(config)


def test_what_is_refused(
    job: Job, control_file: Controls, picture: Path, dance: Path, style_file: Path, tmp_path: Path
) -> None:
    net, sparse = control_file("controlnet"), control_file("sparse_rgb")
    refused(job(controls=[f"{tmp_path}/no.pth={dance}"]), FileError, "controls.0: .*no.pth does not exist")
    refused(job(controls=[f"{style_file}={dance}"]), FileError, "controls.0: .* is a LoRA of images.*give it as loras")
    refused(job(motion=net), FileError, "is a ControlNet, expected a motion module; give it as controls")
    refused(job(controls=[f"{net}={tmp_path}/no.mp4"]), FileError, "controls.0.source: .*there is no such file")
    refused(
        job(num_frames=8, controls=[f"{net}={dance}"]), FileError, "controls.0: .* has 6 frames, but the clip has 8"
    )
    refused(job(controls=[str(net)]), ConfigError, "controls.0: .*nothing to read; give a video.*=dance.mp4")
    refused(job(controls=[f"{sparse}={picture}@frames:0,4"]), ConfigError, "controls.0.frames: 4 is not in the clip")
    refused(job(controls=[str(sparse)]), ConfigError, "controls.0: .*nothing to read.*or image")
    refused(job(controls=[f"{net}={dance}@frames:0"]), ConfigError, "controls.0.frames: only a SparseCtrl")
    refused(job(controls=[f"{net}={dance}@depth:{tmp_path}"]), FileError, "controls.0: .*has no config.json")
    refused(job(controls=[f"{net}={dance}@image_encoder:{tmp_path}"]), ConfigError, "only an IP-Adapter has one")
    lonely = tmp_path / "inside" / "lonely.safetensors"
    lonely.parent.mkdir()
    lonely.write_bytes(control_file("ip_adapter").read_bytes())
    refused(job(controls=[f"{lonely}={picture}"]), FileError, "controls.0: .*which needs the CLIP image encoder")


def test_canny_without_opencv_names_the_extra(
    job: Job, control_file: Controls, dance: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = import_module("stillmotion.data.conditions.preprocessing")
    monkeypatch.setattr(home, "find_spec", lambda _: None)
    refused(
        job(controls=[f"{control_file('controlnet')}={dance}@canny"]),
        ConfigError,
        r"controls.0.preprocessor: canny needs OpenCV; install it by: pip install .stillmotion\[control\]",
    )
