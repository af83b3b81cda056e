"""A job in outline: its windows step by step, what they cost, and what its frames are told. Nothing is loaded for it."""

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from stillmotion.animate.config import STEPS, AnimateConfig
from stillmotion.animate.plan import make_plan
from stillmotion.animate.script import context_of, negatives_of, prompts_of
from stillmotion.animate.upscaling import larger_size, written_fps, written_frames
from stillmotion.errors import FileError
from stillmotion.sampling import Window
from stillmotion.sampling.start import steps_taken

_CELL, _GAP, _LEFT = 6, 10, 56  # pixels
_PALE, _DEEP = (200, 220, 245), (20, 70, 160)
_PAPER, _INK, _LINE = (255, 255, 255), (40, 40, 40), (205, 205, 205)
_WIDEST = 16_000  # pixels of a picture


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What will be done for one clip."""

    config: AnimateConfig
    """The job, settled."""
    steps: tuple[tuple[Window, ...], ...]
    """The windows of every step."""
    second: tuple[tuple[Window, ...], ...] = ()
    """Those of every step of the second pass, which makes the clip larger; none where there is no such pass."""
    notes: tuple[str, ...] = ()
    """What the user should know."""

    @classmethod
    def of(cls, config: AnimateConfig) -> "Outline":
        """Return the outline of a job that is checked as `animate` checks it; errors as `make_plan`."""
        plan = make_plan(config)
        context, frames = context_of(plan.config), plan.config.num_frames
        whole = tuple(context.windows(frames, step) for step in range(plan.config.num_inference_steps or STEPS))

        def taken(share: float | None) -> tuple[tuple[Window, ...], ...]:
            return whole[: steps_taken(len(whole), share)] if share else ()

        steps, second = taken(plan.config.denoise) or whole, taken(plan.config.upscale_denoise)
        return cls(config=plan.config, steps=steps, second=second, notes=plan.notes)

    @property
    def passes(self) -> int:
        """Return how often the UNet is run for a clip, guidance counted as one, in both sizes."""
        return self.config.freeinit_passes * self._runs(self.steps) + self.second_passes

    @property
    def second_passes(self) -> int:
        """Return how many of these are at the larger size."""
        return self._runs(self.second)

    def _runs(self, steps: tuple[tuple[Window, ...], ...]) -> int:
        inside = self.config.context == "inside"
        return sum(1 if inside else len(windows) for windows in steps)

    @property
    def ideal(self) -> float:
        """Return how many windows a step would have if they did not overlap."""
        return max(1.0, self.config.num_frames / context_of(self.config).length)

    def facts(self) -> list[tuple[str, str]]:
        """Return names and what they are, to be printed."""
        config, context = self.config, context_of(self.config)
        seconds = config.num_frames / config.fps
        means = sum(map(len, self.steps)) / len(self.steps)
        windows = f"{context.length} frames, {context.shared} shared, {context.fusion}"
        if context.dilation > 1:
            windows += f", dilation up to {context.dilation}"
        inside = config.context == "inside"
        cost = (
            _count(means, "window")
            + f" of {min(config.num_frames, context.length)} frames; {self.ideal:g} without overlap"
        )
        if inside:
            cost = f"all {config.num_frames} frames at once; within, " + _count(means, "window") + " of attention"
        return [
            ("clip", f"{config.num_frames} frames, {seconds:g} s at {config.fps:g} fps, loop {config.loop}"),
            ("context", f"{config.context}, {windows}" if means > 1 else "one window: all frames fit"),
            ("a step", cost),
            ("a clip", f"{self.passes - self.second_passes} UNet passes in {len(self.steps)} steps" + self._freeinit()),
            ("noise", config.noise),
            *self._after(),
        ]

    def _after(self) -> list[tuple[str, str]]:
        """Return what is done to a clip after its first pass."""
        config, found = self.config, []
        if self.second:
            size, own = larger_size(config), (config.width or 0) * (config.height or 0)
            pixels = size[0] * size[1] / own if size else config.upscale**2
            to = f"to {size[0]}x{size[1]}" if size else f"to {config.upscale:g} times the model's size"
            more = f"{self.second_passes} more UNet pass{'' if self.second_passes == 1 else 'es'}"
            whole = self.passes - self.second_passes + self.second_passes * pixels
            told = f"{more} in {_count(len(self.second), 'step')}, each of {pixels:.3g} times the pixels"
            found.append(("upscale", f"{to}: {told}; in all what {whole:.0f} passes at the first size cost"))
        if config.interpolate > 1:
            told = f"{written_frames(config)} frames at {written_fps(config):g} fps, {config.interpolate - 1} between each two"
            found.append(("interpolate", told))
        return found

    def _freeinit(self) -> str:
        return f", sampled {self.config.freeinit_passes} times" if self.config.freeinit_passes > 1 else ""

    def step_rows(self, most: int) -> list[tuple[str, str]]:
        """Return the windows of the first steps, those that all steps have said once."""
        if len(set(self.steps)) == 1:
            return [("every", _told(self.steps[0]))]
        rows = [(str(index + 1), _told(windows)) for index, windows in enumerate(self.steps[:most])]
        left = len(self.steps) - most
        return rows + ([("…", f"{left} more")] if left > 0 else [])

    def travel_rows(self) -> list[tuple[str, str, str]]:
        """Return what changes over the clip, as (frame, what, value) in the order of frames."""
        config = self.config
        found: list[tuple[int, str, str]] = []
        for name, texts in (("prompt", prompts_of(config)), ("negative_prompt", negatives_of(config))):
            found += [(frame, name, text) for frame, text in texts.items()] if len(texts) > 1 else []
        curves = {"guidance_scale": config.guidance_scale, "motion_strength": config.motion_strength}
        curves |= {f"motion_lora_strengths.{i}": value for i, value in enumerate(config.motion_lora_strengths)}
        for name, value in curves.items():
            if isinstance(value, Mapping):
                found += [(frame % config.num_frames, name, f"{number:g}") for frame, number in value.items()]
        return [(str(frame), name, value) for frame, name, value in sorted(found, key=lambda row: row[:1])]


def drawn(outline: Outline, path: str | os.PathLike[str]) -> Path:
    """Write a picture of the windows, a row for each and a cell per frame, darker where it counts more; return its path.

    Raises `FileError` where it cannot be written.
    """
    frames, target = outline.config.num_frames, Path(path)
    cell = max(1, min(_CELL, (_WIDEST - _LEFT) // frames))
    distinct = len(set(outline.steps))
    steps = outline.steps[:1] if distinct == 1 else outline.steps
    room = max(1, (_WIDEST - _GAP) // max(sum(cell * len(windows) + _GAP for windows in steps) // len(steps), 1))
    steps = steps[:room]
    height = _GAP + sum(cell * len(windows) + _GAP for windows in steps)
    picture = Image.new("RGB", (_LEFT + cell * frames + _GAP, height), _PAPER)
    pen, top = ImageDraw.Draw(picture), _GAP
    for number, windows in enumerate(steps):
        pen.text((6, top - 2), "every" if distinct == 1 else str(number + 1), fill=_INK)
        for window in windows:
            pen.line((_LEFT, top + cell - 1, _LEFT + cell * frames, top + cell - 1), fill=_LINE)
            for frame, weight in zip(window.frames, window.weights, strict=True):
                left = _LEFT + cell * frame
                shade = tuple(round(pale + (deep - pale) * weight) for pale, deep in zip(_PALE, _DEEP, strict=True))
                pen.rectangle((left, top, left + max(cell - 2, 0), top + max(cell - 2, 0)), fill=shade)
            top += cell
        top += _GAP
    try:
        picture.save(target, format="PNG")
    except OSError as error:
        raise FileError(f"{path}: the plan cannot be drawn there: {error.strerror or error}.") from error
    return target


def _count(number: int | float, what: str) -> str:
    return f"{number:g} {what}" + ("" if number == 1 else "s")


def _told(windows: tuple[Window, ...]) -> str:
    """Return windows as people write them: 0-15, 12-27, 24-31+0-7, 0-30/2."""
    return ", ".join(_ranges(window.frames) for window in windows)


def _ranges(frames: tuple[int, ...]) -> str:
    step = min((after - before for before, after in itertools.pairwise(frames) if after > before), default=1)
    parts, begun = [], frames[0]
    for frame, following in zip(frames, (*frames[1:], None), strict=True):
        if following is None or following != frame + step:
            parts.append(f"{begun}-{frame}" if begun != frame else str(frame))
            begun = following if following is not None else 0
    return "+".join(parts) + (f"/{step}" if step > 1 else "")
