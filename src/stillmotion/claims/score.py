"""`stillmotion toyworld score`: captions drawn at random are animated, and the judge says what of them came out."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from stillmotion.animate import AnimateConfig, Session, animate
from stillmotion.seeding import generator
from stillmotion.toyworld import load_judge
from stillmotion.toyworld.judge import Judge, Verdict, judge_clip
from stillmotion.toyworld.language import COLOURS, MOTIONS, SHAPES, Scene, draw_scene
from stillmotion.toyworld.world import draw_clips

WANTED = {"colour": 0.95, "place": 0.95, "shape": 0.85, "motion": 0.85, "identity": 0.90}
WANTED_PER_WORD = 0.60
Frames = UInt8[np.ndarray, "frames height width 3"]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One caption, animated and judged."""

    caption: str
    seed: int
    verdict: Verdict
    frames: Frames


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The shares of clips that are right, of all and by motion word."""

    count: int
    right: dict[str, float]
    by_motion: dict[str, tuple[int, int]]
    """For each motion word: clips that move so, clips asked for."""

    @property
    def passed(self) -> bool:
        """Return whether every share is what the toyworld is held to."""
        words = all(good >= WANTED_PER_WORD * asked for good, asked in self.by_motion.values())
        return words and all(self.right[name] >= share for name, share in WANTED.items())


def drawn_scenes(count: int, seed: int) -> list[Scene]:
    """Return the scenes of `count` captions drawn at random, each with one of the motion words."""
    return [draw_scene(generator(seed, "score", index), motions=MOTIONS) for index in range(count)]


def drawn_frames(scene: Scene, seed: int, index: int = 0) -> Frames:
    """Return the drawn truth of a scene, as a clip's bytes."""
    drawn = draw_clips([scene], seed=seed, indices=[index]).pixels[0]
    return ((drawn + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 3, 0).numpy()


def pixels_of(frames: Frames) -> Float[torch.Tensor, "frames 3 height width"]:
    """Return a clip's bytes as pixels in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, 1).float() / 127.5 - 1


@torch.no_grad()
def read_clip(judge: Judge, frames: Frames, scene: Scene) -> Verdict:
    """Return the judge's verdict on one clip."""
    return judge_clip(judge(pixels_of(frames)), scene)


@torch.no_grad()
def share_showing(judge: Judge, frames: Frames, scene: Scene) -> float:
    """Return the share of frames in which the judge sees the scene's shape, and its colour where it has one."""
    seen = judge(pixels_of(frames))
    right = seen.best("shape") == SHAPES.index(scene.shape)
    if scene.colour is not None:
        right &= seen.best("colour") == COLOURS.index(scene.colour)
    return float(right.float().mean())


def score(
    *,
    count: int = 40,
    seed: int = 7,
    judge_folder: Path | None = None,
    make: Callable[[str, int], Frames] | None = None,
) -> Iterator[Scored]:
    """Animate and judge `count` captions, clip by clip; `make` (prompt, seed) is the embedded models' animate by default."""
    judge = load_judge(judge_folder)
    session = Session()

    def embedded(prompt: str, clip_seed: int) -> Frames:
        return animate(AnimateConfig(prompt=prompt, seed=clip_seed, output_dir=None), session=session).frames

    for index, scene in enumerate(drawn_scenes(count, seed)):
        frames = (make or embedded)(scene.caption, seed + index)
        yield Scored(caption=scene.caption, seed=seed + index, verdict=read_clip(judge, frames, scene), frames=frames)


def score_truth(*, count: int = 200, seed: int = 7, judge_folder: Path | None = None) -> Iterator[Scored]:
    """Judge drawn clips, of which all is known: what the judge itself gets right."""
    judge = load_judge(judge_folder)
    for index, scene in enumerate(drawn_scenes(count, seed)):
        frames = drawn_frames(scene, seed, index)
        yield Scored(caption=scene.caption, seed=index, verdict=read_clip(judge, frames, scene), frames=frames)


def summarise(scored: list[Scored]) -> Summary:
    """Return the shares of right clips."""
    asked: Counter[str] = Counter()
    good: Counter[str] = Counter()
    for one in scored:
        word = next(word for word in MOTIONS if word in one.caption)
        asked[word] += 1
        good[word] += one.verdict.motion
    shares = {name: sum(getattr(one.verdict, name) for one in scored) / len(scored) for name in WANTED}
    return Summary(count=len(scored), right=shares, by_motion={word: (good[word], asked[word]) for word in MOTIONS})
