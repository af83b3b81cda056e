"""C4: MotionLoRA learns camera motions from some 50 clips, and they add up (paper §4.3, §5.4)."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stillmotion.claims.brought import file_of
from stillmotion.claims.filming import Frames, Studio
from stillmotion.claims.finding import Budget, Claim, Figure, Finding, Needed, Progress
from stillmotion.claims.recipe.cameras import CAMERAS, FEWER, Filmed
from stillmotion.config import AdapterFile
from stillmotion.evaluation.camera import CameraMeasured, camera_of
from stillmotion.evaluation.flow import camera_step, flow_between, grey_of
from stillmotion.seeding import generator
from stillmotion.toyworld.language import draw_scene

COUNT, FEWER_COUNT = 20, 10
FRAMES, STEPS = 16, 8  # of 8 frames a camera goes half as far; few steps, since these are most of all the claims' clips
FEWEST = 20  # clips; the paper asks for 20 to 50, and shows that 5 are too few
PAIRS = (("zoom-in", "pan-left"), ("tilt-up", "roll-clockwise"))
WANTED = 0.9
NOTE = (
    "The captions say that nothing moves. A roll goes about a sixth of the 45 degrees that it was trained on, since what stands "
    "stays nearly upright as its caption's stills do, and a clip that turns by less than two degrees does not count. Two "
    "MotionLoRAs added weaken each other. At 8 steps what stands still is roughly drawn, late in a clip most of all, and its "
    "change of form is part of the flow that is fitted. The paper finds five clips too few; here they teach a zoom as well as "
    "48, since the toyworld's pictures differ little from each other."
)
NEEDED = tuple(Needed("motion_loras", name) for name in (*CAMERAS, *FEWER))


def camera_in(frames: Frames) -> CameraMeasured | None:
    """Return what the camera did in a clip, from the flow of its frames; None where nothing can be followed."""
    greys = [grey_of(frame) for frame in frames]
    steps = [camera_step(a, b, flow_between(a, b)) for a, b in itertools.pairwise(greys)]
    return camera_of(steps, greys[0].shape)


def measure(budget: Budget) -> Iterator[Progress | Finding]:
    """Animate things that stand still under each camera motion, and under two at once; fit the flow."""
    takes: list[tuple[tuple[str, ...], int]] = [((name,), budget.of(COUNT)) for name in CAMERAS]
    takes += [(pair, budget.of(COUNT)) for pair in PAIRS] + [((name,), budget.of(FEWER_COUNT)) for name in FEWER]
    total, done = sum(clips for _, clips in takes), 0
    studio, figures = Studio("C4", budget), []
    filmed = {**CAMERAS, **FEWER}

    for names, clips in takes:
        files = [file_of(Needed("motion_loras", name), budget) for name in names]
        adapters = tuple(AdapterFile(path=file) for file in files)
        fields: dict[str, Any] = {"motion_loras": adapters, "num_frames": FRAMES, "num_inference_steps": STEPS}
        right = []
        for index in range(clips):
            scene = draw_scene(generator(budget.seed, "camera scene", index), motions=(None,))
            frames = studio.film(scene.caption, budget.seed + index, called="+".join(names), **fields)
            seen = camera_in(frames)
            right.append(seen is not None and all(seen.goes(filmed[name].motion) for name in names))
            done += 1
            yield Progress(done=done, total=total)
        told = FEWER.get(names[0])
        name = " + ".join(names) if told is None else _told(told, Path(files[0]))
        asked = told is None or (told.num_clips or 0) >= FEWEST
        figures.append(Figure(name=name, values=right, at_least=WANTED if asked else None, as_share=True))
    yield Finding(figures=tuple(figures))


def _told(filmed: Filmed, file: Path) -> str:
    """Return what is special about a training, and how large its file is."""
    how = f"of {filmed.num_clips} clips" if filmed.num_clips else f"at rank {filmed.rank}"
    return f"{filmed.motion} {how} ({file.stat().st_size / 1e6:.2f} MB)"


CLAIM = Claim(
    name="C4",
    sentence="MotionLoRA learns camera motions from 20 to 50 clips, and they add up.",
    measured="Optical flow, fitted by a similarity, goes in the motion's direction; with two MotionLoRAs in both.",
    where="§4.3, §5.4",
    note=NOTE,
    measure=measure,
    needed=NEEDED,
)
