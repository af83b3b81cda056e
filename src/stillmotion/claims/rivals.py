"""C6: AnimateDiff against Text2Video-Zero and Tune-A-Video on the same image model (paper §5.2, Table 1)."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from stillmotion.baselines import Text2VideoZeroConfig, TuneAVideoConfig
from stillmotion.claims.filming import Frames, Studio
from stillmotion.claims.finding import Budget, Claim, Figure, Finding, Progress
from stillmotion.claims.gauge import Gauge, all_of, paired
from stillmotion.claims.score import drawn_frames, read_clip
from stillmotion.data import write_clip
from stillmotion.seeding import generator
from stillmotion.toyworld import Scene, load_judge
from stillmotion.toyworld.language import MOTIONS, draw_scene

COUNT = 16
STILLS, STILLS_APART = 4, 1000  # pictures for each caption, and how far their seeds are from the clips'
TUNING_STEPS, TUNING_RATE = 32, 3e-4
OURS, ZERO, TUNED = "AnimateDiff", "Text2Video-Zero", "Tune-A-Video"

AS_SAID = "motion as the caption says"
ROWS: Mapping[str, tuple[str, int]] = {
    AS_SAID: (AS_SAID, 1),
    "text": ("CLIP text", 0),
    "domain": ("CLIP domain", 1),
    "smoothness": ("CLIP smoothness", 1),
    "warping_error": ("warping error", -1),
    "flicker": ("flicker", 0),
    "motion": ("length of the flow", 0),
}
"""What is measured: its head in the report, and whether AnimateDiff must have more (1), less (-1) or need not (0)."""

NOTE = (
    "A pair is one caption and seed, in the same steps and guidance. Decided by the paired differences of what the paper claims: "
    "nearer to the image model's own pictures, smoother, and moving as it is told. Its Table 1 has AnimateDiff's text score "
    "below both others', so none is asked for; flicker and flow count motion itself. Tune-A-Video is tuned on one drawn clip of "
    f"another subject for each motion, {TUNING_STEPS} steps at {TUNING_RATE:g} where the paper takes 500 at 3e-5 on 24 frames. "
    "Text2Video-Zero shifts the whole picture by the same motion field whatever the caption says, as published."
)


def scenes_of(count: int, seed: int) -> list[Scene]:
    """Return captions drawn at random, their motions in turn."""
    words = itertools.cycle(MOTIONS)
    return [draw_scene(generator(seed, "rivals' scene", i), motions=(next(words),)) for i in range(count)]


def tuning_scene(motion: str | None, scenes: Sequence[Scene], seed: int) -> Scene:
    """Return the first drawn scene of a motion whose shape and colour are in none of `scenes` together."""
    shown = {(scene.shape, scene.colour) for scene in scenes}
    drawn = (draw_scene(generator(seed, "tuning scene", i), motions=(motion,)) for i in itertools.count())
    return next(scene for scene in drawn if (scene.shape, scene.colour) not in shown)


def clips_of(studio: Studio, scene: Scene, taught: Scene, seed: int, folder: Path) -> Iterator[tuple[str, Frames]]:
    """Yield a caption's clip by each method; what is drawn and tuned for Tune-A-Video stays in `folder`."""
    yield OURS, studio.film(scene.caption, seed, called=OURS)
    yield ZERO, studio.film_baseline(Text2VideoZeroConfig(prompt=scene.caption, seed=seed))
    place = folder / str(taught.motion).replace(" ", "-")
    if not place.exists():
        place.mkdir()
        write_clip(drawn_frames(taught, seed), place / "frames", 8)
    tuned = TuneAVideoConfig(
        prompt=scene.caption,
        video=place / "frames",
        video_prompt=taught.caption,
        tuning_dir=place / "tuning",
        num_tuning_steps=TUNING_STEPS,
        learning_rate=TUNING_RATE,
        seed=seed,
    )
    yield TUNED, studio.film_baseline(tuned)


def measure(budget: Budget) -> Iterator[Progress | Finding]:
    """Make each caption's clip by the three methods, and its still pictures; measure all, and take differences in pairs."""
    count = budget.of(COUNT)
    studio, judge = Studio("C6", budget), load_judge()
    gauge = Gauge("text", "domain", "smoothness", "warping_error", "flicker", "motion")
    scenes = scenes_of(count, budget.seed)
    read: dict[str, list[dict[str, float]]] = {OURS: [], ZERO: [], TUNED: []}
    with TemporaryDirectory(prefix="stillmotion-") as folder:
        for index, scene in enumerate(scenes):
            seed = budget.seed + index
            stills = studio.film(
                scene.caption, seed + STILLS_APART, called="stills", motion_strength=0.0, num_frames=STILLS
            )
            taught = tuning_scene(scene.motion, scenes, budget.seed)
            for nth, (method, frames) in enumerate(clips_of(studio, scene, taught, seed, Path(folder)), 1):
                right = float(read_clip(judge, frames, scene).motion)
                read[method].append({AS_SAID: right, **gauge.read(frames, scene.caption, stills)})
                yield Progress(done=len(read) * index + nth, total=len(read) * count)
    yield Finding(figures=(*_differences(read), *_means(read)))


def _differences(read: Mapping[str, Sequence[dict[str, float]]]) -> Iterator[Figure]:
    for name, (head, better) in ROWS.items():
        for other in (ZERO, TUNED) if better else ():
            yield Figure(
                name=f"{head}: {OURS} less {other}",
                values=paired(name, read[OURS], read[other]),
                surely_above=0.0 if better > 0 else None,
                surely_below=0.0 if better < 0 else None,
                as_share=name == AS_SAID,
                scale=f"difference of {head}",
            )


def _means(read: Mapping[str, Sequence[dict[str, float]]]) -> Iterator[Figure]:
    for name, (head, _) in ROWS.items():
        for method, clips in read.items():
            share = name == AS_SAID
            yield Figure(name=f"{head}: {method}", values=all_of(name, clips), as_share=share, scale=head)


CLAIM = Claim(
    name="C6",
    sentence="AnimateDiff is smoother and nearer to the image model than Text2Video-Zero and Tune-A-Video.",
    measured="The three CLIP scores, the flow's measures and the judge's reading of the motion, on paired clips.",
    where="§5.2, Table 1",
    note=NOTE,
    measure=measure,
)
