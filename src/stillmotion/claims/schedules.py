"""C8: the linear noise schedule against Stable Diffusion's scaled-linear one (the paper's first report on arXiv)."""

from collections.abc import Iterator, Sequence

from stillmotion.claims.filming import Studio
from stillmotion.claims.finding import Budget, Claim, Figure, Finding, Progress
from stillmotion.claims.gauge import Gauge, all_of, paired
from stillmotion.claims.score import drawn_frames, drawn_scenes, read_clip
from stillmotion.toyworld import load_judge

COUNT = 16
LINEAR, SCALED = "linear", "scaled_linear"
AS_SAID = "motion as the caption says"

NOTE = (
    "The report says that the linear schedule avoids low saturation and flicker; there the image model was trained under "
    "scaled-linear, and the motion module under linear. The toyworld's image model and motion module were both trained under "
    "linear, so this measures what it costs to sample under another schedule than a motion module's own, which is what a "
    "wrong variant does to a file; it does not compare two trainings. The schedules differ by degree only: at timestep 500 of "
    "1000 there is 16 % of the picture's variance left under linear and 28 % under scaled-linear, at the last one 0.2 % and "
    "0.5 %. Flicker counts motion, too: the warping error is what motion does not explain."
)


def measure(budget: Budget) -> Iterator[Progress | Finding]:
    """Make each caption's clip from the same noise under both schedules; measure flicker and saturation in pairs."""
    count, studio, judge = budget.of(COUNT), Studio("C8", budget), load_judge()
    gauge = Gauge("flicker", "saturation", "warping_error")
    read: dict[str, list[dict[str, float]]] = {LINEAR: [], SCALED: []}
    truth = []
    for index, scene in enumerate(drawn_scenes(count, budget.seed)):
        for nth, (name, clips) in enumerate(read.items(), 1):
            frames = studio.film(scene.caption, budget.seed + index, called=name, noise_schedule=name)
            clips.append({AS_SAID: float(read_clip(judge, frames, scene).motion), **gauge.read(frames)})
            yield Progress(done=2 * index + nth, total=2 * count)
        truth.append(gauge.read(drawn_frames(scene, budget.seed, index)))
    yield Finding(figures=tuple(_figures(read[LINEAR], read[SCALED], truth)))


def _figures(
    linear: Sequence[dict[str, float]], scaled: Sequence[dict[str, float]], truth: Sequence[dict[str, float]]
) -> Iterator[Figure]:
    more, less = paired("flicker", scaled, linear), paired("saturation", scaled, linear)
    yield Figure(name="flicker: scaled-linear less linear", values=more, surely_above=0.0)
    yield Figure(name="saturation: scaled-linear less linear", values=less, surely_below=0.0)
    for name in ("flicker", "saturation", "warping_error", AS_SAID):
        for called, clips in (("linear", linear), ("scaled-linear", scaled), ("drawn truth", truth)):
            values = all_of(name, clips)
            if values:  # the truth's motion is what the caption says
                head = name.replace("_", " ")
                yield Figure(name=f"{head}: {called}", values=values, as_share=name == AS_SAID, scale=name)


CLAIM = Claim(
    name="C8",
    sentence="The linear schedule avoids the flicker and the low saturation of Stable Diffusion's scaled-linear one.",
    measured="Flicker and saturation of clips with the same weights, captions and noise under both schedules.",
    where="the first report, arXiv 2307.04725v1",
    note=NOTE,
    measure=measure,
)
