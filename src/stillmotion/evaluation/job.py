"""The job itself: every clip is read once, frame by frame, and all measures are taken as it goes by."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from stillmotion import toyworld
from stillmotion.data import read_frames
from stillmotion.devices import choose_device
from stillmotion.errors import Cancelled, FileError, StillmotionError
from stillmotion.evaluation.clip_scores import ClipScores
from stillmotion.evaluation.config import TOYWORLD, EvaluateConfig
from stillmotion.evaluation.flow import opencv
from stillmotion.evaluation.found import FoundClip, find_clips, read_prompts
from stillmotion.evaluation.measured import Measured
from stillmotion.evaluation.metrics import METRICS
from stillmotion.evaluation.motion import MotionMeasures
from stillmotion.evaluation.references import read_picture, reference_files
from stillmotion.evaluation.report import write_report
from stillmotion.evaluation.results import ClipResult, Evaluation, clip_result, summarise
from stillmotion.evaluation.steadiness import PixelMeasures
from stillmotion.t2i.clip_pair import ClipPair, NotHereError, load_clip, named_clip


@dataclass(frozen=True, kw_only=True)
class ClipMeasured:
    """One clip is measured."""

    done: int
    """How many clips are."""
    total: int
    """Of how many."""
    clip: ClipResult
    """What was found."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """All clips are measured, and the report is written where one was asked for."""

    evaluation: Evaluation
    """What was found."""


EvaluateEvent = ClipMeasured | Evaluated
"""What the job yields: a `ClipMeasured` for each clip, then `Evaluated`."""


@runtime_checkable
class Part(Protocol):
    """Something that measures a clip as its frames go by."""

    def add(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Take the next frame."""

    def finish(self) -> Measured:
        """Return what was measured."""


def evaluate(
    config: EvaluateConfig,
    *,
    progress: Callable[[EvaluateEvent], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> Evaluation:
    """Measure clips and return what was found; with `config.output_dir` a report is written into a new folder there.

    A metric that cannot be measured, because its model, its inputs or its library are not there, is `skipped` with the
    reason; the others are measured.

    Raises:
        ConfigError: A value is out of range.
        FileError: A clip, table, picture or CLIP folder is missing or not what it should be.
        Cancelled: `cancel`, asked before each clip, said so. Nothing is written.
    """
    for event in evaluation(config, cancel=cancel):
        if progress is not None:
            progress(event)
        if isinstance(event, Evaluated):
            return event.evaluation
    raise StillmotionError("The evaluation ended without a result.")


def evaluation(config: EvaluateConfig, *, cancel: Callable[[], bool] | None = None) -> Iterator[EvaluateEvent]:
    """Check everything that is named now, and return the iterator that measures; see `evaluate`."""
    device = choose_device(config.device)
    prompts = read_prompts(config.prompts) if config.prompts else None
    clips = find_clips(config.clips, prompt=config.prompt, prompts=prompts)
    if config.references is not None:
        for clip in clips:
            reference_files(config.references, clip.name)
    if config.clip != TOYWORLD:
        named_clip(config.clip)
    return _events(config, clips, device, cancel or (lambda: False))


def _events(
    config: EvaluateConfig, clips: list[FoundClip], device: torch.device, cancel: Callable[[], bool]
) -> Iterator[EvaluateEvent]:
    began = time.perf_counter()
    means = Means(config, device)
    results: list[ClipResult] = []
    for clip in clips:
        if cancel():
            raise Cancelled("Stopped; no report is written.")
        results.append(means.measure(clip))
        yield ClipMeasured(done=len(results), total=len(clips), clip=results[-1])
    metrics, skipped, notes = summarise(results, config)
    found = Evaluation(
        clips=tuple(results),
        metrics=metrics,
        skipped=skipped,
        notes=(*means.notes(clips), *notes),
        config=config,
        clip_files=means.clip.files if means.clip else {},
        seconds=time.perf_counter() - began,
    )
    if config.output_dir is not None:
        found = replace(found, folder=write_report(found, config.output_dir))
    yield Evaluated(evaluation=found)


class Means:
    """What there is to measure with: the CLIP model, OpenCV, the references; and why something of it is not there."""

    def __init__(self, config: EvaluateConfig, device: torch.device) -> None:
        self._config, self._wanted = config, frozenset(config.metrics)
        self._missing: dict[str, str] = {}
        self._references: dict[tuple[str, ...], Float[Tensor, "pictures features"]] = {}
        self.clip: ClipPair | None = None
        if any(METRICS[name].takes == "clip" for name in self._wanted):
            self.clip = self._load_clip(device)
        try:
            opencv()
        except ImportError:
            self._missing["flow"] = "OpenCV is not installed (pip install 'stillmotion[evaluation]')"

    def measure(self, clip: FoundClip) -> ClipResult:
        """Return the measures of one clip, read once."""
        measured = Measured()
        parts = self._parts(clip, measured)
        count = 0
        for frame in read_frames(clip.path):
            count += 1
            for part in parts:
                part.add(frame)
        if not count:
            raise FileError(f"{clip.path}: expected a clip, but it holds no frame.")
        for part in parts:
            measured.join(part.finish())
        measured.keep(self._wanted)
        for name in self._config.metrics:
            if name not in measured.values:
                measured.skipped.setdefault(name, self._reason(name, clip, count))
        return clip_result(clip, measured, count)

    def notes(self, clips: list[FoundClip]) -> list[str]:
        """Return what the reader should know of how it was measured."""
        found: list[str] = []
        if self.clip is None:
            return found
        for clip in clips:
            cut = self.clip.tokens_cut(clip.prompt) if clip.prompt and "text" in self._wanted else 0
            if cut:
                found.append(f"{clip.name}: the prompt's last {cut} tokens are over CLIP's length and were not read.")
        if self._config.clip == TOYWORLD and any(clip.prompt and not _of_the_toyworld(clip.prompt) for clip in clips):
            found.append(
                "The toyworld's tiny CLIP knows nothing but the toyworld; give --clip for clips of anything else."
            )
        return found

    def _load_clip(self, device: torch.device) -> ClipPair | None:
        source = self._config.clip
        try:
            return load_clip(str(toyworld.weights_folder() / "clip") if source == TOYWORLD else source, device)
        except NotHereError as error:
            self._missing["clip"] = str(error)
        except FileError as error:
            if source != TOYWORLD:
                raise
            self._missing["clip"] = str(error)
        return None

    def _parts(self, clip: FoundClip, measured: Measured) -> list[Part]:
        parts: list[Part] = []
        if self.clip is not None:
            prompt = self.clip.of_texts([clip.prompt])[0] if clip.prompt and "text" in self._wanted else None
            parts.append(ClipScores(self.clip, self._wanted, prompt, self._references_of(clip, measured)))
        if "flow" not in self._missing and any(METRICS[name].takes == "flow" for name in self._wanted):
            parts.append(MotionMeasures(self._wanted))
        if any(METRICS[name].takes == "pixels" for name in self._wanted):
            parts.append(PixelMeasures())
        return parts

    def _references_of(self, clip: FoundClip, measured: Measured) -> Float[Tensor, "pictures features"] | None:
        if self.clip is None or "domain" not in self._wanted or self._config.references is None:
            return None
        files = reference_files(self._config.references, clip.name)
        if not files:
            measured.skipped["domain"] = f"{self._config.references} holds no pictures for this clip"
            return None
        key = tuple(map(str, files))
        if key not in self._references:
            self._references[key] = self.clip.of_pictures([read_picture(file) for file in files])
        return self._references[key]

    def _reason(self, name: str, clip: FoundClip, count: int) -> str:
        """Return why a clip of `count` frames has no number of a metric."""
        metric = METRICS[name]
        if metric.takes in self._missing:
            return self._missing[metric.takes]
        if count < metric.fewest_frames:
            takes = "two" if metric.fewest_frames == 2 else "three"
            return f"it takes at least {takes} frames, and the clip has {count}"
        if name == "text" and not clip.prompt:
            return "the clip does not say its prompt; give --prompt, or --prompts with a table"
        if name == "domain" and self._config.references is None:
            return "there are no reference pictures; give a folder of them by --references"
        return "it cannot be measured in this clip"


def _of_the_toyworld(prompt: str) -> bool:
    try:
        toyworld.parse(prompt)
    except StillmotionError:
        return False
    return True
