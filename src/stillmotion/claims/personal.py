"""C2: the motion module moves personal models that it never met, and they keep their style (paper §5.1)."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stillmotion.claims.brought import file_of, recipe_of
from stillmotion.claims.filming import Frames, Studio
from stillmotion.claims.finding import Budget, Claim, Figure, Finding, Needed, Progress
from stillmotion.claims.recipe.personal import PAL, WORD, train_whole, whole_folder
from stillmotion.claims.score import drawn_frames, drawn_scenes, read_clip, share_showing
from stillmotion.config import AdapterFile, EmbeddingFile
from stillmotion.seeding import generator
from stillmotion.t2i.clip_pair import ClipPair, load_clip
from stillmotion.toyworld import load_judge, motion_file, weights_folder
from stillmotion.toyworld.language import draw_scene

COUNT, DRAWN = 6, 24
KEPT = 0.9
NEON, PAPER = "neon", "paper"
STYLE, WORD_FILE = Needed("loras", NEON), Needed("embeddings", "pal")


class StyleReader:
    """How much of a personal style is in pictures: 0 as the plain cartoon, 1 as drawn in the style.

    The same scenes are drawn both ways, and a picture's CLIP features are projected on the line between the two means.
    """

    def __init__(self, clip: ClipPair, style: str, seed: int) -> None:
        scenes = [draw_scene(generator(seed, "style reader", index)) for index in range(DRAWN)]
        plain, styled = (
            clip.of_pictures(
                [drawn_frames(dataclasses.replace(s, style=name), seed, i)[8] for i, s in enumerate(scenes)]
            )
            for name in (None, style)
        )
        self._clip, self._plain, self._way = clip, plain.mean(0), styled.mean(0) - plain.mean(0)

    def __call__(self, frames: Frames) -> float:
        """Return the mean over the frames."""
        along = (self._clip.of_pictures(list(frames)) - self._plain) @ self._way
        return float(along.mean() / self._way.square().sum())


@dataclass
class Takes:
    """What was made with one personal model, clip by clip."""

    stills: list[float]
    """The style of the still picture of the same caption and seed, or whether it shows the friend."""
    clips: list[float]
    """The same of the clip's frames."""
    moves: list[bool]
    truth: list[bool]
    """What the judge, which knows the plain cartoon alone, makes of the drawn clip in that style."""


def measure(budget: Budget) -> Iterator[Progress | Finding]:
    """Make stills and clips with a LoRA, a DreamBooth and a Textual Inversion, plugged with the same motion module."""
    count, studio, judge = budget.of(COUNT), Studio("C2", budget), load_judge()
    yield from _dreambooth(budget)
    clip = load_clip(str(weights_folder() / "clip"))
    recipe = recipe_of(budget)
    models: Mapping[str, Mapping[str, Any]] = {
        NEON: {"loras": (AdapterFile(path=file_of(STYLE, budget)),)},
        PAPER: {"model": str(whole_folder(recipe, PAPER)), "motion": str(motion_file()), "dtype": "float32"},
    }
    found: dict[str, Takes] = {}
    total, done = 3 * count, 0
    for style, fields in models.items():
        reader, takes = StyleReader(clip, style, budget.seed), Takes([], [], [], [])
        for index, plain in enumerate(drawn_scenes(count, budget.seed)):
            scene = dataclasses.replace(plain, style=style)
            still, frames = _both(studio, plain.caption, budget.seed + index, style, fields)
            takes.stills.append(reader(still))
            takes.clips.append(reader(frames))
            takes.moves.append(read_clip(judge, frames, plain).motion)
            takes.truth.append(read_clip(judge, drawn_frames(scene, budget.seed, index), plain).motion)
            done += 1
            yield Progress(done=done, total=total)
        found[style] = takes
    friend = Takes([], [], [], [])
    for index, around in enumerate(drawn_scenes(count, budget.seed)):
        scene = dataclasses.replace(around, shape=PAL.shape, colour=PAL.colour)
        caption = scene.caption.replace(f"{PAL.colour} {PAL.shape}", WORD)
        fields = {"embeddings": (EmbeddingFile(file_of(WORD_FILE, budget)),)}
        still, frames = _both(studio, caption, budget.seed + index, "pal", fields)
        friend.stills.append(share_showing(judge, still, PAL))
        friend.clips.append(share_showing(judge, frames, PAL))
        friend.moves.append(read_clip(judge, frames, scene).motion)
        done += 1
        yield Progress(done=done, total=total)
    yield Finding(figures=(*_of_styles(found), *_of_the_friend(friend)))


def _dreambooth(budget: Budget) -> Iterator[Progress]:
    """Train the DreamBooth, which is too large to ship, unless an earlier run left it."""
    recipe = recipe_of(budget)
    if not whole_folder(recipe, PAPER).exists():
        for step in train_whole(recipe, PAPER):
            yield Progress(done=step.step, total=step.num_steps, what=f"training {PAPER}")


def _both(studio: Studio, caption: str, seed: int, called: str, fields: Mapping[str, Any]) -> tuple[Frames, Frames]:
    """Return the still picture that the personal model makes, and the clip of the same noise."""
    still = studio.film(caption, seed, called=f"{called}-still", num_frames=1, motion_strength=0.0, **fields)
    return still, studio.film(caption, seed, called=called, **fields)


def _of_styles(found: Mapping[str, Takes]) -> Iterator[Figure]:
    for (style, takes), how in zip(found.items(), ("LoRA", "DreamBooth"), strict=True):
        name = f"{style} ({how})"
        yield Figure(name=f"{name}: style of the still", values=takes.stills, scale="style")
        yield Figure(name=f"{name}: style of the clip", values=takes.clips, scale="style")
        yield Figure(name=f"{name}: style kept", values=_kept(takes), at_least=KEPT, as_share=True)
        yield Figure(name=f"{name}: motion as the caption says", values=takes.moves, as_share=True)
        yield Figure(name=f"{name}: the same, of drawn clips", values=takes.truth, as_share=True)


def _of_the_friend(takes: Takes) -> Iterator[Figure]:
    yield Figure(name="<pal> (Textual Inversion): shown in the still", values=takes.stills, as_share=True)
    yield Figure(name="<pal> (Textual Inversion): kept in the clip", values=_kept(takes), at_least=KEPT, as_share=True)
    yield Figure(name="<pal> (Textual Inversion): motion as the caption says", values=takes.moves, as_share=True)


def _kept(takes: Takes) -> Sequence[float]:
    """Return what each clip has of what the stills have on average."""
    whole = sum(takes.stills) / len(takes.stills)
    return [value / max(whole, 1e-6) for value in takes.clips]


CLAIM = Claim(
    name="C2",
    sentence="The motion module moves personal models that it never met, and they keep their style.",
    measured="How much of a style, or of a friend, is in the clip, beside the still picture of the same caption and noise; and "
    "motion, which the judge reads less surely in styles that it never saw.",
    where="§5.1, Fig. 4",
    measure=measure,
    needed=(STYLE, WORD_FILE),
)
