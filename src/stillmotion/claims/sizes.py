"""C9: a motion module that was trained at one size and length serves others (the released configurations do so)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from stillmotion.claims.filming import Frames, Studio
from stillmotion.claims.finding import Budget, Claim, Figure, Finding, Progress
from stillmotion.claims.gauge import Gauge, all_of
from stillmotion.claims.score import drawn_scenes, read_clip
from stillmotion.toyworld import Scene, load_judge
from stillmotion.toyworld.choreography import CLIP_FRAMES
from stillmotion.toyworld.judge import Judge

WANTED = 0.8
AS_SAID = "motion as the caption says"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A size or length that is sampled."""

    name: str
    """As the report calls it."""
    count: int
    """How many clips are made of it."""
    fields: dict[str, Any] = field(default_factory=dict)
    """What `animate` is told of it."""
    wanted: float | None = WANTED
    """The share of clips that must move as they are told."""


TRAINED = Case(name="16 frames of 128x128, as trained", count=12, wanted=None)
CASES = (
    TRAINED,
    Case(name="96x96", count=12, fields={"width": 96, "height": 96}),
    Case(name="160x128", count=12, fields={"width": 160, "height": 128}),
    Case(name="8 frames", count=12, fields={"num_frames": 8}),
    Case(name="24 frames in windows", count=8, fields={"num_frames": 24}),
    Case(name="32 frames in windows", count=6, fields={"num_frames": 32}),
)

NOTE = (
    f"The motion module was trained on {CLIP_FRAMES} frames of 128x128 only. A clip of 8 frames is half of a motion, so half is "
    f"asked of it. A longer clip is denoised in windows of {CLIP_FRAMES}, and its first and its last {CLIP_FRAMES} frames are "
    "read, since what rolls for longer leaves the picture; its share is that of such stretches. The judge sees every picture "
    "squeezed into a square. Smoothness is CLIP's, 100 times the cosine of neighbours. In the sheets that were looked at bodies "
    "keep their size in pixels, so that at 96x96 they fill the picture and go a shorter way, and fall apart as they bounce; in "
    "32 frames a motion begins anew where one window passes into the next."
)


def moves_as_said(judge: Judge, frames: Frames, scene: Scene) -> float:
    """Return whether a clip moves as its caption says; of one longer than was trained, the share of its ends that do."""
    ends = [frames] if len(frames) <= CLIP_FRAMES else [frames[:CLIP_FRAMES], frames[-CLIP_FRAMES:]]
    return sum(read_clip(judge, end, scene).motion for end in ends) / len(ends)


def measure(budget: Budget) -> Iterator[Progress | Finding]:
    """Make the same captions' clips in every size and length, as many as each affords."""
    studio, judge, gauge = Studio("C9", budget), load_judge(), Gauge("smoothness")
    counts = [budget.of(case.count) for case in CASES]
    scenes = drawn_scenes(max(counts), budget.seed)
    moving, smooth, done = [], [], 0
    for case, count in zip(CASES, counts, strict=True):
        right, read = [], []
        for index, scene in enumerate(scenes[:count]):
            frames = studio.film(scene.caption, budget.seed + index, called=case.name.replace(",", ""), **case.fields)
            right.append(moves_as_said(judge, frames, scene))
            read.append(gauge.read(frames))
            done += 1
            yield Progress(done=done, total=sum(counts))
        moving.append(Figure(name=f"{AS_SAID}: {case.name}", values=right, at_least=case.wanted, as_share=True))
        values = all_of("smoothness", read)
        smooth.append(Figure(name=f"smoothness: {case.name}", values=values, scale="smoothness"))
    yield Finding(figures=(*moving, *smooth))


CLAIM = Claim(
    name="C9",
    sentence="A motion module trained at one size serves other sizes and lengths.",
    measured="The judge reads the motion, and CLIP the smoothness, of clips in other sizes and lengths than the trained one.",
    where="its released configurations train at 256x256 and sample at 512x512",
    note=NOTE,
    measure=measure,
)
