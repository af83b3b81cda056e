"""A control with what it steers by, as prompts of the command line and YAML write it."""

import difflib
import math
import os
import re
from dataclasses import dataclass
from typing import Annotated, ClassVar

from stillmotion.config.kinds import Limits
from stillmotion.errors import ConfigError

_SHARE = r"(\d*\.?\d+(?:e-\d+)?)"
_SPAN = re.compile(f"{_SHARE}-{_SHARE}")
_OPTIONS = ("canny", "none", "depth:FOLDER", "frames:0,8,15", "image_encoder:FOLDER", "0-0.5")


@dataclass(frozen=True, kw_only=True)
class ControlFile:
    """A ControlNet, T2I-Adapter, IP-Adapter or SparseCtrl, and what it reads.

    In text `MODEL=SOURCE:STRENGTH@OPTION@OPTION`, of which only the model must be there:

        depth.safetensors=hand.mp4
        canny.safetensors=dance.mp4:0.8@canny@0-0.5
        v3_sd15_sparsectrl_scribble.ckpt=sketches@frames:0,8,15

    In a path an `@` is written twice; so is an `=` in the model's path.
    """

    path: Annotated[str, Limits(blank=False)]
    """The control model: a file or a diffusers folder."""
    source: str | None = None
    """What it reads: a video, a folder of frames or a picture; without it the job's own video or pictures."""
    preprocessor: str = "none"
    """What is made of the source first: none, canny, or depth:FOLDER with a folder of a depth model."""
    strength: float = 1.0
    """How strongly it acts: 1 as trained, 0 not at all."""
    start: Annotated[float, Limits(minimum=0, maximum=1)] = 0.0
    """The share of the steps after which it begins to act."""
    end: Annotated[float, Limits(minimum=0, maximum=1)] = 1.0
    """The share of the steps after which it acts no more."""
    frames: tuple[int, ...] = ()
    """The frames of the clip that the pictures stand at (SparseCtrl), from 0; -1 is the last one."""
    image_encoder: str | None = None
    """The folder of the CLIP image encoder that an IP-Adapter reads pictures with."""

    in_words: ClassVar[str] = "a control as MODEL=SOURCE:STRENGTH@OPTION"
    free_text: ClassVar[bool] = True  # its text may hold commas, and it names what is wrong in it

    # Its own checks say more than a run-time type checker in front of them.
    __no_type_check__ = True

    def __post_init__(self) -> None:
        for name in ("path", "source", "image_encoder"):
            if isinstance(value := getattr(self, name), os.PathLike):
                object.__setattr__(self, name, os.fspath(value))
        for name in ("strength", "start", "end"):
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "frames", tuple(self.frames))
        if not self.path.strip():
            raise ConfigError("path: expected the file of a control model, got nothing")
        if self.source is not None and not self.source.strip():
            raise ConfigError("source: expected a video, a folder of frames or a picture after '=', got nothing")
        if not math.isfinite(self.strength):
            raise ConfigError(f"strength: expected a finite number, got {self.strength!r}")
        if not 0 <= self.start < self.end <= 1:
            raise ConfigError(
                f"start: expected a share of the steps from 0 to 1 with start before end, as 0-0.5, "
                f"got {self.start:g}-{self.end:g}"
            )
        kind, _, folder = self.preprocessor.partition(":")
        if (kind, bool(folder.strip())) not in (("none", False), ("canny", False), ("depth", True)):
            raise ConfigError(f"preprocessor: expected none, canny or depth:FOLDER, got {self.preprocessor!r}")
        if len(set(self.frames)) < len(self.frames):
            raise ConfigError(f"frames: expected each frame once, got {_listed(self.frames)}")

    @classmethod
    def from_text(cls, text: str) -> "ControlFile":
        r"""Read `MODEL=SOURCE:STRENGTH@OPTION@OPTION`; drive letters (`C:\depth.safetensors`) belong to the paths."""
        body, *options = _split(text.strip(), "@")
        model, *source = _split(body, "=", 1)
        # The strength stands behind the last of the two paths.
        last, strength = _strength_of(source[0] if source else model)
        said: dict[str, object] = {"path": model, "source": last} if source else {"path": last}
        for option in options:
            for field, value in _read_option(option).items():
                if field in said:
                    raise ConfigError(f"{field}: said twice in {text!r}")
                said[field] = value
        return cls(strength=strength, **said)  # type: ignore[arg-type]  # each option gives its field's kind

    def __str__(self) -> str:
        source = "" if self.source is None else f"={_doubled(self.source, '@')}"
        model = _doubled(_doubled(self.path, "@"), "=")
        options = [_doubled(self.preprocessor, "@")] if self.preprocessor != "none" else []
        options += [f"{self.start!r}-{self.end!r}"] if (self.start, self.end) != (0, 1) else []
        options += [f"frames:{_listed(self.frames)}"] if self.frames else []
        options += [f"image_encoder:{_doubled(self.image_encoder, '@')}"] if self.image_encoder else []
        return "@".join([f"{model}{source}:{self.strength!r}", *options])


def _read_option(option: str) -> dict[str, object]:
    """Return the field, or the two, that an option of the text sets."""
    if span := _SPAN.fullmatch(option):
        return {"start": float(span[1]), "end": float(span[2])}
    word, _, value = option.partition(":")
    if option in ("none", "canny") or (word == "depth" and value):
        return {"preprocessor": option}
    if word == "image_encoder" and value:
        return {"image_encoder": value}
    if word == "frames" and value:
        try:
            return {"frames": tuple(int(part) for part in value.split(","))}
        except ValueError:
            raise ConfigError(f"frames: expected numbers as 0,8,15, got {value!r}") from None
    near = difflib.get_close_matches(word, [known.partition(":")[0] for known in _OPTIONS], n=1)
    hint = f"; the nearest is {near[0]}" if near else ""
    raise ConfigError(
        f"options: expected one of {', '.join(_OPTIONS)} after '@', got {option!r}{hint}; an @ in a path is written @@"
    )


def _strength_of(text: str) -> tuple[str, float]:
    head, _, tail = text.rpartition(":")
    try:
        return (head, float(tail)) if len(head) > 1 else (text, 1.0)
    except ValueError:
        return text, 1.0


def _split(text: str, mark: str, most: int = -1) -> list[str]:
    """Return what single marks part; a doubled mark is one that belongs to the text."""
    return [part.replace("\0", mark) for part in text.replace(mark * 2, "\0").split(mark, most)]


def _doubled(text: str, mark: str) -> str:
    return text.replace(mark, mark * 2)


def _listed(frames: tuple[int, ...]) -> str:
    return ",".join(map(str, frames))
