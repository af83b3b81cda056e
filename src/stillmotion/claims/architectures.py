"""C5: the temporal Transformer against a 1-D temporal convolution of as many parameters (paper §5.3, Fig. 6)."""

from collections.abc import Iterator, Sequence

from stillmotion.claims.brought import file_of
from stillmotion.claims.filming import Studio
from stillmotion.claims.finding import Budget, Claim, Figure, Finding, Needed, Progress
from stillmotion.claims.gauge import Gauge, all_of, paired
from stillmotion.claims.score import drawn_frames, drawn_scenes, read_clip
from stillmotion.evaluation import MetricName
from stillmotion.toyworld import load_judge

COUNT = 16
TRANSFORMER, CONVOLUTION = Needed("motion", "transformer"), Needed("motion", "temporal_conv")
MEASURES: tuple[MetricName, ...] = ("motion", "smoothness", "warping_error")
AS_SAID = "motion as the caption says"

NOTE = (
    "Both modules were trained over the same base on the same clips in the same order, for as many steps, and have as many "
    "parameters to within 0.02 %. The paper found that convolution keeps all frames the same; so less motion is expected of it. "
    "In 600 steps the convolution hops in the sheets that were looked at, and the Transformer in half of them. What moves here "
    "goes one way at one speed, or hops at nearly one moment, which a convolution can tell from the frames beside and from the "
    "clip's padded ends: it moves as the caption says at least as often."
)


def measure(budget: Budget) -> Iterator[Progress | Finding]:
    """Make each caption's clip from the same noise with both; measure motion and smoothness in pairs."""
    count, studio, judge = budget.of(COUNT), Studio("C5", budget), load_judge()
    gauge = Gauge(*MEASURES)
    read: dict[str, list[dict[str, float]]] = {TRANSFORMER.name: [], CONVOLUTION.name: []}
    truth = []
    for index, scene in enumerate(drawn_scenes(count, budget.seed)):
        for nth, needed in enumerate((TRANSFORMER, CONVOLUTION), 1):
            motion = file_of(needed, budget)
            frames = studio.film(scene.caption, budget.seed + index, called=needed.name, motion=motion)
            right = float(read_clip(judge, frames, scene).motion)
            read[needed.name].append({AS_SAID: right, **gauge.read(frames)})
            yield Progress(done=2 * index + nth, total=2 * count)
        truth.append(gauge.read(drawn_frames(scene, budget.seed, index)))
    yield Finding(figures=tuple(_figures(read, truth)))


def _figures(read: dict[str, list[dict[str, float]]], truth: Sequence[dict[str, float]]) -> Iterator[Figure]:
    ours, other = read.values()
    more = paired("motion", ours, other)
    yield Figure(name="length of the flow: Transformer less convolution", values=more, surely_above=0.0)
    right = paired(AS_SAID, ours, other)
    yield Figure(name=f"{AS_SAID}: Transformer less convolution", values=right, surely_above=0.0)
    for name in (AS_SAID, *MEASURES):
        for called, clips in (("Transformer", ours), ("convolution", other), ("drawn truth", truth)):
            if values := all_of(name, clips):  # the truth's motion is what the caption says
                yield Figure(name=f"{name}: {called}", values=values, as_share=name == AS_SAID, scale=name)


CLAIM = Claim(
    name="C5",
    sentence="The temporal Transformer moves where a 1-D temporal convolution of as many parameters does not.",
    measured="Length of the flow, motion as the caption says and smoothness, of clips from the same noise.",
    where="§5.3, Fig. 6",
    note=NOTE,
    measure=measure,
    needed=(TRANSFORMER, CONVOLUTION),
)
