"""C7: control without extra training: a depth ControlNet that saw only pictures steers clips (paper §5.4)."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from stillmotion.claims.brought import file_of
from stillmotion.claims.filming import Frames, Studio
from stillmotion.claims.finding import Budget, Claim, Figure, Finding, Needed, Progress
from stillmotion.claims.score import drawn_scenes, pixels_of, share_showing
from stillmotion.config import ControlFile
from stillmotion.toyworld import load_judge
from stillmotion.toyworld.choreography import Poses
from stillmotion.toyworld.drawing import Look, draw_depth
from stillmotion.toyworld.judge import Judge
from stillmotion.toyworld.language import Scene
from stillmotion.toyworld.world import draw_clips

COUNT = 10
MOST_AWAY = 0.06
DEPTH = Needed("controls", "depth")


def path_error(judge: Judge, frames: Frames, poses: Poses) -> float:
    """Return how far the object is from where it should be, in widths, on average over the frames."""
    with torch.no_grad():
        x, y, *_ = judge(pixels_of(frames)).measures.unbind(1)
    return float(torch.hypot(x - poses.x[0], y - poses.y[0]).mean())


def measure(budget: Budget) -> Iterator[Progress | Finding]:
    """Steer clips by the depth of drawn ones; what moves in those is not said, so that depth alone can tell it."""
    count, studio, judge = budget.of(COUNT), Studio("C7", budget), load_judge()
    steered, free, objects = [], [], []
    for index, scene in enumerate(drawn_scenes(count, budget.seed)):
        drawn = draw_clips([scene], seed=budget.seed, indices=[index])
        caption = dataclasses.replace(scene, motion=None).caption
        with TemporaryDirectory() as folder:
            _write_depth(drawn.look, drawn.poses, Path(folder))
            control = ControlFile(path=file_of(DEPTH, budget), source=folder)
            frames = studio.film(caption, budget.seed + index, called=scene.motion or "", controls=(control,))
        steered.append(path_error(judge, frames, drawn.poses))
        objects.append(share_showing(judge, frames, Scene(shape=scene.shape)))
        yield Progress(done=2 * index + 1, total=2 * count)
        frames = studio.film(caption, budget.seed + index, called="free")
        free.append(path_error(judge, frames, drawn.poses))
        yield Progress(done=2 * index + 2, total=2 * count)
    gained = [a - b for a, b in zip(free, steered, strict=True)]
    yield Finding(
        figures=(
            Figure(name="path error, in widths", values=steered, at_most=MOST_AWAY, scale="path"),
            Figure(name="path error without the ControlNet", values=free, scale="path"),
            Figure(name="what the ControlNet takes off it", values=gained, surely_above=0.0, scale="path"),
            Figure(name="frames that show the caption's shape", values=objects, as_share=True),
        )
    )


def _write_depth(look: Look, poses: Poses, folder: Path) -> None:
    """Write a clip's depth as a folder of frames, as any depth estimator's would be."""
    for index, frame in enumerate(draw_depth(look, poses)):
        pixels = ((frame + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{index:03}.png")


CLAIM = Claim(
    name="C7",
    sentence="A ControlNet that was trained on pictures alone steers clips, with no training more.",
    measured="How far the object is from where the depth clip has it, with captions that do not say how it moves.",
    where="§5.4",
    measure=measure,
    needed=(DEPTH,),
)
