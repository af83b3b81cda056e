"""Broken clips: set aside with their reasons, never hidden, and the end of a run where they are many."""

import json
import os
from pathlib import Path

from stillmotion.errors import FileError

MOST_BROKEN = 0.05
"""The share of a source's clips that may be broken."""

_SHOWN = 5


def too_many(broken: int, total: int) -> bool:
    """Return whether so many broken clips end a run: more than 5 % of all, and at least two."""
    return broken >= 2 and broken > MOST_BROKEN * total


class Quarantine:
    """Collects the clips that cannot be read, one JSON line each (`clip`, `reason`) in `file` as they come.

    A run stops when more than 5 % of all its clips are broken and they are at least two: one broken clip of ten is set
    aside, two are not. A clip that is added again counts once.
    """

    def __init__(self, total: int, file: str | os.PathLike[str] | None = None) -> None:
        self.total = total
        self.file = Path(file) if file is not None else None
        self.reasons: dict[str, str] = {}
        """Why, by key."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)  # of an earlier run, whose clips may have been mended

    def __len__(self) -> int:
        return len(self.reasons)

    def add(self, key: str, reason: str) -> None:
        """Set a clip aside; raise `FileError` with a summary if too many are broken now, or the list is not written."""
        if key in self.reasons:
            return
        self.reasons[key] = reason
        if self.file is not None:
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                with self.file.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps({"clip": key, "reason": reason}, ensure_ascii=False) + "\n")
            except OSError as error:
                raise FileError(f"{self.file}: cannot be written: {error.strerror}.") from error
        if too_many(len(self.reasons), self.total):
            raise FileError(self.summary())

    def summary(self) -> str:
        """Return how many clips are broken and why, the first few of them; empty if none is."""
        if not self.reasons:
            return ""
        count, where = len(self.reasons), f"; all are in {self.file}" if self.file else ""
        lines = [f"  {reason}" for reason in list(self.reasons.values())[:_SHOWN]]
        told = f"{count} of {self.total} clips {'is' if count == 1 else 'are'} broken"
        limit = (
            f", more than {MOST_BROKEN:.0%}: the run stops. Mend or remove them" if too_many(count, self.total) else ""
        )
        return "\n".join([f"{told}{limit}{where}.", *lines])
