"""What can be said in the toyworld: its words, its captions, and the scene that a caption means.

    caption := ["a" style "cartoon of"] "a" [colour] shape [motion] [place]

Every part but the shape may be left out: "a red ball rolling right on green grass", "a star at night".
"""

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any

import torch

from stillmotion.errors import ConfigError

SHAPES = ("ball", "box", "star", "triangle")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")
PLACES = ("on green grass", "on yellow sand", "on white snow", "on a pink planet", "at night")
MOTIONS = ("rolling right", "rolling left", "bouncing", "spinning", "growing")
STYLES = ("neon", "paper")  # the personal styles; the base world is the plain cartoon

STYLE_SUFFIX = "cartoon of"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a caption says. `None` means that the caption leaves it open (motion: the object stands still)."""

    shape: str
    colour: str | None = None
    motion: str | None = None
    place: str | None = None
    style: str | None = None

    @property
    def caption(self) -> str:
        """Return the sentence that says this scene."""
        style = f"a {self.style} {STYLE_SUFFIX}" if self.style else None
        return " ".join(part for part in (style, "a", self.colour, self.shape, self.motion, self.place) if part)


def parse(caption: str) -> Scene:
    """Return the scene that `caption` says; raise `ConfigError` naming the first word that the grammar has no place for."""
    rest = f"{' '.join(caption.lower().split())} "
    found: dict[str, str | None] = {"style": None}
    for style in STYLES:
        if rest.startswith(opening := f"a {style} {STYLE_SUFFIX} "):
            found["style"], rest = style, rest.removeprefix(opening)
    rest = rest.removeprefix("a ")
    for part, words in (("colour", COLOURS), ("shape", SHAPES), ("motion", MOTIONS), ("place", PLACES)):
        found[part] = next((word for word in words if rest.startswith(f"{word} ")), None)
        rest = rest.removeprefix(f"{found[part]} ") if found[part] else rest
    if rest.strip() or found["shape"] is None:
        where = repr(rest.split()[0]) if rest.strip() else "its end"
        raise ConfigError(
            f"The toyworld does not understand {caption!r} at {where}. Say: a [{'|'.join(COLOURS)}] {'|'.join(SHAPES)} "
            f"[{'|'.join(MOTIONS)}] [{'|'.join(PLACES)}]."
        )
    return Scene(**found)  # type: ignore[arg-type]  # the shape was just checked


def vocabulary() -> list[str]:
    """Return every word of every caption, sorted; the tokenizer knows these as whole words."""
    said = itertools.chain(SHAPES, COLOURS, PLACES, MOTIONS, STYLES, ["a", STYLE_SUFFIX])
    return sorted({word for words in said for word in words.split()})


def draw_scene(generator: torch.Generator, *, motions: tuple[str | None, ...] = (*MOTIONS, None)) -> Scene:
    """Return a scene drawn evenly from every word, its motion from `motions`."""

    def choose(words: tuple[str | None, ...]) -> str | None:
        return words[int(torch.randint(len(words), (), generator=generator))]

    return Scene(shape=str(choose(SHAPES)), colour=choose(COLOURS), motion=choose(motions), place=choose(PLACES))


def shorten(scene: Scene, generator: torch.Generator) -> Scene:
    """Return the scene with its colour, place or motion sometimes left unsaid, as people's captions leave things out."""
    drop = torch.rand(3, generator=generator) < torch.tensor([0.06, 0.12, 0.06])
    unsaid = [part for part, dropped in zip(("colour", "place", "motion"), drop.tolist(), strict=True) if dropped]
    nothing: dict[str, Any] = dict.fromkeys(unsaid)
    return dataclasses.replace(scene, **nothing)
