"""What is shown to whom: the clips that all methods have, in an order of each rater's own."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stillmotion.errors import FileError, MismatchError
from stillmotion.evaluation.found import RUN_CLIPS, FoundClip, find_clips, is_ended, read_prompts
from stillmotion.evaluation.references import read_picture, reference_files
from stillmotion.evaluation.study.config import QUESTIONS, StudyConfig
from stillmotion.seeding import derive

MOST_REFERENCES = 6
_TIME_OF_RUN = re.compile(r"(?<![^/])\d{8}-\d{6}-")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One prompt, as each method has made it."""

    name: str
    """What the clip is called in every folder, without its ending."""
    prompt: str
    """What it should show."""
    clips: dict[str, Path]
    """The clip of each method."""
    references: tuple[Path, ...]
    """Pictures by the image model."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study that can be shown."""

    methods: tuple[str, ...]
    """Their names: those of their folders."""
    questions: tuple[str, ...]
    """What is asked."""
    items: tuple[Item, ...]
    """The prompts."""
    seed: int
    """Where the orders come from."""
    notes: tuple[str, ...] = ()
    """What the one who runs it should know."""

    def order_of_items(self, rater: str) -> list[int]:
        """Return the numbers of the items in the order in which a rater sees them."""
        return self._shuffled(len(self.items), f"{rater}")

    def order_of_methods(self, rater: str, item: int) -> list[str]:
        """Return the methods in the order in which a rater sees their clips: A, B, C."""
        return [self.methods[index] for index in self._shuffled(len(self.methods), f"{rater}/{self.items[item].name}")]

    def header(self) -> dict[str, object]:
        """Return what tells this study from another: the first line of its answers."""
        return {
            "study": 1,
            "methods": sorted(self.methods),
            "questions": list(self.questions),
            "items": sorted(item.name for item in self.items),
        }

    def _shuffled(self, count: int, purpose: str) -> list[int]:
        known = hashlib.sha256(purpose.encode()).hexdigest()
        return np.random.default_rng(derive(self.seed, f"study {known}")).permutation(count).tolist()


def plan_study(config: StudyConfig) -> Study:
    """Return the study of a config, every file of it looked at.

    Raises `FileError` for what is missing or no clip, `MismatchError` where the folders have no clip in common or a
    prompt is asked about that no clip says.
    """
    folders = [Path(said).expanduser() for said in config.methods]
    for folder in folders:
        if not folder.is_dir():
            raise FileError(
                f"methods: {folder} {'is a file' if folder.is_file() else 'does not exist'}; give a folder of clips."
            )
    names = _method_names(folders)
    prompts = read_prompts(config.prompts) if config.prompts else None
    by_method = {
        name: _by_name(find_clips([str(folder)], prompt=config.prompt, prompts=prompts), folder)
        for name, folder in zip(names, folders, strict=True)
    }
    shared = sorted(set.intersection(*(set(clips) for clips in by_method.values())))
    if not shared:
        firsts = ", ".join(f"{name}: {min(clips)}" for name, clips in by_method.items())
        raise MismatchError(f"methods: no clip has the same file name in all folders; the first of each are {firsts}")
    asked = config.asked()
    items = [_item(name, by_method, config, with_prompt="text" in asked) for name in shared]
    left_out = sorted(set().union(*by_method.values()) - set(shared))
    notes = [f"left out, since not every method has it: {name}" for name in left_out]
    return Study(methods=tuple(names), questions=asked, items=tuple(items), seed=config.seed, notes=tuple(notes))


def _item(name: str, by_method: dict[str, dict[str, FoundClip]], config: StudyConfig, *, with_prompt: bool) -> Item:
    clips = {method: found[name] for method, found in by_method.items()}
    said = list(dict.fromkeys(clip.prompt for clip in clips.values() if clip.prompt))
    if len(said) > 1:
        raise MismatchError(f"{name}: the methods' clips were made from different prompts: {said[0]!r} and {said[1]!r}")
    if with_prompt and not said:
        raise MismatchError(
            f"{name}: no clip says its prompt, which the question {QUESTIONS['text']!r} is about; give --prompts with a "
            "table of file and prompt, or ask other questions"
        )
    files: Sequence[Path] = reference_files(config.references, name) if config.references else ()
    for file in files[:MOST_REFERENCES]:
        read_picture(file)
    return Item(
        name=name,
        prompt=said[0] if said else "",
        clips={method: clip.path for method, clip in clips.items()},
        references=tuple(files[:MOST_REFERENCES]),
    )


def _by_name(clips: list[FoundClip], folder: Path) -> dict[str, FoundClip]:
    """Return the clips by what they are called in the folder: a file's stem, or the folder of its frames or run.

    A run's folder begins with the time, which two methods never share; it is left off.
    """
    found: dict[str, FoundClip] = {}
    for clip in clips:
        inside = clip.path.relative_to(folder)
        called = inside.parent if len(inside.parts) > 1 and inside.name in RUN_CLIPS else inside
        name = called.with_suffix("").as_posix() if is_ended(called.name) else called.as_posix()
        name = _TIME_OF_RUN.sub("", name)
        if name in found:
            raise FileError(
                f"{folder}: {name} is there twice, as {found[name].path.name} and {clip.path.name}; leave one."
            )
        found[name] = clip
    return found


def _method_names(folders: list[Path]) -> list[str]:
    names = [folder.resolve().name for folder in folders]
    taken = Counter(names)
    whole = [name if taken[name] == 1 else str(folder) for name, folder in zip(names, folders, strict=True)]
    if len(set(whole)) < len(whole):
        raise MismatchError("methods: the same folder is given twice")
    return whole
