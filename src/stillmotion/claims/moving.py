"""C1: the motion module moves the base model as the caption says (paper §4.2, §5.1)."""

from collections.abc import Iterator

from stillmotion.claims.filming import Studio
from stillmotion.claims.finding import Budget, Claim, Figure, Finding, Progress
from stillmotion.claims.score import drawn_scenes, read_clip
from stillmotion.toyworld import load_judge

COUNT, STILL = 40, 6


def measure(budget: Budget) -> Iterator[Progress | Finding]:
    """Animate captions drawn at random; read motion and object back; do a few without motion, too."""
    studio, judge = Studio("C1", budget), load_judge()
    count, without = budget.of(COUNT), budget.of(STILL)
    scenes = drawn_scenes(count, budget.seed)
    told = []
    for index, scene in enumerate(scenes):
        frames = studio.film(scene.caption, budget.seed + index)
        # Against the caption that was said, and against the next one, which was not.
        unsaid = scenes[(index + 1) % count]
        told.append((read_clip(judge, frames, scene), read_clip(judge, frames, unsaid)))
        yield Progress(done=index + 1, total=count + without)
    stills = []
    for index, scene in enumerate(scenes[:without]):
        frames = studio.film(scene.caption, budget.seed + index, called="still", motion_strength=0.0)
        stills.append(read_clip(judge, frames, scene))
        yield Progress(done=count + index + 1, total=count + without)
    right, other = [v for v, _ in told], [v for _, v in told]
    yield Finding(
        figures=(
            Figure(name="motion as the caption says", values=[v.motion for v in right], at_least=0.9, as_share=True),
            Figure(name="object as the caption says", values=[v.shape and v.colour for v in right], as_share=True),
            Figure(name="object kept through the clip", values=[v.identity for v in right], as_share=True),
            Figure(name="motion as another caption says", values=[v.motion for v in other], at_most=0.4, as_share=True),
            Figure(name="motion without the module", values=[v.motion for v in stills], at_most=0.2, as_share=True),
        )
    )


CLAIM = Claim(
    name="C1",
    sentence="The motion module moves the base model as the caption says.",
    measured="The judge reads each clip's motion and object; beside it stand another clip's caption, and no motion module.",
    where="§4.2, §5.1",
    measure=measure,
)
