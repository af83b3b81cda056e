"""The paper's slight fine-tuning (§4.2): ten clips of a far-off style teach the module, and it still knows how to move."""

import dataclasses
import logging
import statistics
from pathlib import Path

import numpy as np
import pytest

import stillmotion as sm
from stillmotion.animate import AnimateConfig, Session
from stillmotion.claims.personal import StyleReader
from stillmotion.claims.score import drawn_frames, drawn_scenes, read_clip
from stillmotion.config import AdapterFile
from stillmotion.data import write_clip
from stillmotion.t2i.clip_pair import load_clip
from stillmotion.toyworld import brought_file, load_judge, motion_file, weights_folder
from stillmotion.training import TrainConfig, train

STYLE = "neon"
TAUGHT, STEPS = 10, 200
SHOWN, SAMPLING_STEPS = 20, 12
MOTION_LOST = 0.05


def written_clips(folder: Path) -> Path:
    """Draw ten clips in the style, with captions that do not name it, as someone's own folder of clips."""
    folder.mkdir()
    for index, scene in enumerate(drawn_scenes(TAUGHT, seed=100)):
        frames = drawn_frames(dataclasses.replace(scene, style=STYLE), 100, index)
        write_clip(frames, folder / f"{index}.mp4", 8)
        (folder / f"{index}.txt").write_text(scene.caption)
    return folder


@pytest.mark.slow
def test_ten_clips_of_a_style_cost_no_motion_and_no_style(tmp_path: Path) -> None:
    tuned, *_ = train(
        TrainConfig(
            stage="motion_module",
            data=str(written_clips(tmp_path / "clips")),
            output_dir=tmp_path / "tuned",
            motion=str(motion_file()),
            frame_stride=1,
            batch_size=1,
            num_steps=STEPS,
            device="cpu",
        )
    )
    style = AdapterFile(path=str(brought_file("loras", STYLE)))
    judge, reader = load_judge(), StyleReader(load_clip(str(weights_folder() / "clip")), STYLE, seed=0)

    def shown(motion: Path) -> tuple[float, float]:
        """Return the share of clips that move as told, and how much of the style is in them."""
        session, moves, styles = Session(), [], []
        for index, scene in enumerate(drawn_scenes(SHOWN, seed=11)):
            job = AnimateConfig(
                prompt=scene.caption,
                motion=str(motion),
                loras=(style,),
                num_inference_steps=SAMPLING_STEPS,
                seed=index,
                device="cpu",
            )
            frames: np.ndarray = sm.animate(job, session=session).frames
            moves.append(read_clip(judge, frames, scene).motion)
            styles.append(reader(frames))
        return statistics.mean(moves), statistics.mean(styles)

    (moved, styled), (moves, style_now) = shown(motion_file()), shown(tuned)
    said = f"motion {moved:.3f} before, {moves:.3f} after; style {styled:.3f} before, {style_now:.3f} after"
    logging.getLogger(__name__).info(said)  # shown by --log-cli-level=INFO
    assert moves >= moved - MOTION_LOST, said
    assert style_now >= styled, said
