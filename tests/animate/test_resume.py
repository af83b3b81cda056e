"""A job that was interrupted goes on: the clip is the same to the bit, what is finished is kept, what is no such run is named."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

import stillmotion as sm
from stillmotion.animate import AnimateConfig, Finished, Session, StepDone, animation, plan_replay, plan_resume, run
from stillmotion.checkpoints.files import read_header
from stillmotion.cli.door import main
from stillmotion.data import read_clip
from stillmotion.errors import Cancelled, FileError, MismatchError

Job = Callable[..., AnimateConfig]
_session = Session()


def interrupted(config: AnimateConfig, after: int, clip: int = 0) -> Path:
    """Cancel a job after a step of a clip, counted from 0; return the folder that it leaves."""
    reached = threading.Event()

    def watch() -> None:
        for event in animation(config, cancel=reached.is_set, session=_session):
            if isinstance(event, StepDone) and (event.clip, event.step) == (clip, after):
                reached.set()

    with pytest.raises(Cancelled, match="goes on from there"):
        watch()
    (folder,) = Path(str(config.output_dir)).glob("*.unfinished")
    return folder


def resumed(folder: Path) -> list[sm.Clip]:
    """Go on with a run; return the clips that are made."""
    return [event.clip for event in run(plan_resume(folder), session=_session) if isinstance(event, Finished)]


@pytest.mark.parametrize(
    ("how", "after"),
    [
        ({"sampler": "unipc", "num_frames": 7, "context_length": 4, "context": "uniform", "num_inference_steps": 4}, 2),
        ({"freeinit_passes": 2, "sampler": "pndm", "num_inference_steps": 3}, 4),
        ({"dtype": "bfloat16", "sampler": "dpm++_sde"}, 1),
    ],
    ids=str,
)
def test_a_clip_goes_on_to_the_same_bits(job: Job, tmp_path: Path, how: dict[str, Any], after: int) -> None:
    whole = sm.animate(job(**how), session=_session)
    folder = interrupted(job(**how, state_every=0, output_dir=tmp_path), after)
    (clip,) = resumed(folder)
    assert np.array_equal(clip.frames, whole.frames)
    assert clip.run["resumed_after_step"] == after and "unfinished" not in clip.run
    assert list(tmp_path.iterdir()) == [clip.folder]
    assert np.array_equal(sm.replay(str(clip.folder), session=_session).frames, whole.frames)


def test_finished_clips_are_kept_and_only_the_others_made(job: Job, tmp_path: Path) -> None:
    alone = [sm.animate(job(seed=seed), session=_session).frames for seed in (7, 8, 9)]
    folder = interrupted(job(num_clips=3, state_every=0, output_dir=tmp_path), after=1, clip=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-7/*")}
    assert len(before) == 4
    again = folder.rename(tmp_path / "moved.unfinished")
    second, third = resumed(again)
    assert (second.seed, third.seed) == (8, 9) and not again.exists()
    assert np.array_equal(second.frames, alone[1]) and np.array_equal(third.frames, alone[2])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-7/*")} == before


def test_a_job_goes_on_more_than_once_and_begins_a_clip_without_state(job: Job, tmp_path: Path) -> None:
    whole = sm.animate(job(num_inference_steps=4), session=_session)
    folder = interrupted(job(num_inference_steps=4, num_clips=2, state_every=0, output_dir=tmp_path), after=1)
    events = run(plan_resume(folder), session=_session)
    assert [event.step for event in islice(events, 4) if isinstance(event, StepDone)] == [1, 2]
    events.close()  # type: ignore[attr-defined]  # what leaving a `for` loop does
    step = plan_resume(folder).interrupted
    assert step is not None and step.step is not None and step.step.index in (1, 2)
    (folder / "state.safetensors").unlink()
    first, _ = resumed(folder)
    assert np.array_equal(first.frames, whole.frames) and "resumed_after_step" not in first.run


def test_a_killed_process_goes_on_by_the_command(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps, config = 20, job()
    words = ["animate", config.prompt, "--model", config.model, "--motion", str(config.motion), "--device", "cpu"]
    words += ["-L", "4", "--seed", "7", "-s", str(steps), "--sampler", "dpm++", "--formats", "png"]
    command = [sys.executable, "-m", "stillmotion", *words, "-o", str(tmp_path), "--state-every", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(tmp_path.glob("*.unfinished/state.safetensors")):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    (folder,) = tmp_path.iterdir()
    _, said = read_header(folder / "state.safetensors")
    assert 0 < int(said["step"]) < steps

    assert main(["replay", str(folder), "--resume"]) == 0
    written = Path(capsys.readouterr().out.strip())
    assert written.parent.parent == tmp_path and not folder.exists()
    whole = sm.animate(job(num_inference_steps=steps, sampler="dpm++"), session=_session)
    assert np.array_equal(read_clip(written), whole.frames)


def test_short_jobs_and_jobs_in_memory_keep_nothing(job: Job, tmp_path: Path) -> None:
    for config in (job(output_dir=tmp_path), job(output_dir=tmp_path, state_every=None), job(state_every=0)):
        events = animation(config, session=_session)
        assert [event.step for event in islice(events, 4) if isinstance(event, StepDone)] == [1, 2]
        events.close()  # type: ignore[attr-defined]
        assert not list(tmp_path.iterdir())


def test_what_cannot_go_on_is_named(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match=r"empty: this folder is no run: there is no run\.json in it"):
        plan_resume(tmp_path / "empty")
    with pytest.raises(FileError, match="none: there is no such file"):
        plan_resume(tmp_path / "none")
    made = sm.animate(job(output_dir=tmp_path / "made", state_every=0, formats=("gif",)), session=_session)
    assert made.folder is not None
    for finished in (made.folder, made.folder / "run.json", made.folder / "clip.gif"):
        with pytest.raises(FileError, match="this run is finished, there is nothing to go on with"):
            plan_resume(finished)
    folder = interrupted(job(output_dir=tmp_path / "left", state_every=0), after=1)
    with pytest.raises(FileError, match="was interrupted; `stillmotion replay --resume` goes on"):
        plan_replay(folder)
    assert main(["replay", str(folder), "--resume", "--set", "seed=3"]) == 2
    assert "--set: a run that goes on stays where and as it began" in capsys.readouterr().err
    with FileLock(folder / ".lock"), pytest.raises(FileError, match="another process is at work in it"):
        resumed(folder)


def test_a_state_of_another_job_is_refused(job: Job, tmp_path: Path) -> None:
    folder = interrupted(job(output_dir=tmp_path, state_every=0), after=1)
    record, state = folder / "run.json", folder / "state.safetensors"
    whole = record.read_text(encoding="utf-8")
    told = json.loads(whole)
    told["config"]["prompt"] = "a blue box"
    record.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(MismatchError, match=r"state\.safetensors: this state belongs to another job"):
        plan_resume(folder)
    told = json.loads(whole)
    told["unfinished"]["finished"] = ["it"]
    record.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(FileError, match="every clip of this run is finished: it"):
        plan_resume(folder)
    record.write_text(whole, encoding="utf-8")
    content = state.read_bytes()
    for wrong in (b"x", b"0"):
        state.write_bytes(content.replace(b'"total":"2"', b'"total":"' + wrong + b'"'))
        with pytest.raises(FileError, match=r"this state is damaged .* remove it to begin the clip anew"):
            plan_resume(folder)
    state.write_bytes(content[:-4])
    with pytest.raises(FileError, match="cut short"):
        plan_resume(folder)
