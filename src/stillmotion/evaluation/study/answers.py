"""The answers of a study: one JSON object per line, only ever added to, each line written at once."""

import contextlib
import datetime as dt
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillmotion.errors import FileError, MismatchError
from stillmotion.evaluation.study.plan import Study


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How one rater ranked one item's clips."""

    rater: str
    """The rater's name."""
    item: str
    """The item's name."""
    ranks: Mapping[str, Mapping[str, int]]
    """For each question the place of each method: 1 is the best."""


class Answers:
    """The answers of a study in a file; those that stand there already are gone on with.

    The last answer of a rater to an item counts: who goes back may think again, and nothing written is changed. Raises
    `MismatchError` where the file holds the answers of another study, `FileError` where it cannot be read or written.
    """

    def __init__(self, path: Path, study: Study) -> None:
        self.path, self._study, self._lock = path, study, threading.Lock()
        self._given: dict[tuple[str, str], Answer] = {}
        if path.exists():
            header, answers = read_answers(path)
            _same_study(path, header, study.header())
            self._given = {(answer.rater, answer.item): answer for answer in answers}
        else:
            self._append(study.header())

    def of(self, rater: str) -> dict[str, Answer]:
        """Return a rater's answers by the item's name."""
        return {item: answer for (who, item), answer in self._given.items() if who == rater}

    def add(self, answer: Answer, shown: Sequence[str], seconds: float | None = None) -> None:
        """Keep an answer; `shown` are the methods in the order in which the rater saw them."""
        line = {
            "rater": answer.rater,
            "item": answer.item,
            "ranks": {question: dict(ranks) for question, ranks in answer.ranks.items()},
            "shown": list(shown),
            "seconds": seconds,
            "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        }
        with self._lock:
            self._append(line)
            self._given[answer.rater, answer.item] = answer

    def _append(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                size = os.fstat(file).st_size
                # A line that a crash cut short is closed first, so that it spoils nothing but itself.
                torn = size > 0 and _last_byte(file, size) != b"\n"
                os.write(file, (b"\n" if torn else b"") + text)
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise FileError(f"answers: {self.path} cannot be written: {error.strerror}.") from error


def read_answers(path: Path) -> tuple[dict[str, Any], list[Answer]]:
    """Return what study a file of answers is of, and each rater's last answer to each item.

    A line that a crash cut short is passed over. Raises `FileError` where the file is missing or holds no study.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        missing = (
            "there is no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        )
        raise FileError(f"{path}: {missing}.") from error
    loaded = []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            loaded.append(json.loads(line))
    header = loaded[0] if loaded and isinstance(loaded[0], dict) else {}
    lists = [header.get(name) for name in ("methods", "questions", "items")]
    if header.get("study") != 1 or not all(isinstance(one, list) and one for one in lists):
        raise FileError(f"{path}: expected the answers of `stillmotion study`, but its first line does not say so.")
    found: dict[tuple[str, str], Answer] = {}
    for line in loaded[1:]:
        answer = _answer_of(line, header)
        if answer is not None:
            found[answer.rater, answer.item] = answer
    return header, list(found.values())


def _answer_of(line: Any, header: Mapping[str, Any]) -> Answer | None:
    """Return the answer of a line; None where it is no whole answer to this study."""
    if not isinstance(line, dict) or line.get("item") not in header["items"] or not isinstance(line.get("rater"), str):
        return None
    ranks = line.get("ranks")
    if not isinstance(ranks, dict) or set(ranks) != set(header["questions"]):
        return None
    whole = all(is_ranking(given, header["methods"]) for given in ranks.values())
    return Answer(rater=line["rater"], item=line["item"], ranks=ranks) if whole else None


def is_ranking(given: Any, methods: Sequence[str]) -> bool:
    """Return whether each method has a place of its own, from 1 to their number."""
    if not isinstance(given, Mapping) or set(given) != set(methods):
        return False
    places = list(given.values())
    return all(type(place) is int for place in places) and sorted(places) == list(range(1, len(methods) + 1))


def _same_study(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    for name in ("methods", "questions", "items"):
        if there[name] != here[name]:
            raise MismatchError(
                f"answers: {path} holds the answers of another study: its {name} are {', '.join(map(str, there[name]))}, those "
                f"of this one {', '.join(map(str, here[name]))}; name another file by --answers"
            )


def _last_byte(file: int, size: int) -> bytes:
    os.lseek(file, size - 1, os.SEEK_SET)
    return os.read(file, 1)
