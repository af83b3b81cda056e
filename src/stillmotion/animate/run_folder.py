"""Run folders: made under a hidden name, filled, and renamed into place when everything in them is whole."""

import contextlib
import datetime as dt
import json
import re
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stillmotion.errors import FileError

_LONGEST_SLUG, _LONGEST_SEED = 48, 24
_LOCK, _YOUNG = ".lock", 60.0  # seconds in which a folder may have been made and not locked yet


class RunFolder:
    """A folder that appears as `<date>-<time>-<words of the prompt>-<seed>`, or not at all.

    While it is filled its process holds a lock in it: what a killed process left is known by that, and swept away by the
    next one that makes a folder there.
    """

    def __init__(self, output_dir: Path, prompt: str, seed: int) -> None:
        self._name = run_name(prompt, seed)
        self._output_dir, self._is_new = output_dir, not output_dir.exists()
        self._partial = output_dir / f".{uuid.uuid4().hex[:12]}.partial"
        self._lock = FileLock(self._partial / _LOCK, timeout=0)
        try:
            _sweep(output_dir)
            self._partial.mkdir(parents=True)
            self._lock.acquire()
        except OSError as error:
            raise FileError(f"output_dir: {output_dir} cannot be made: {error.strerror}.") from error

    def path(self, name: str) -> Path:
        """Return where a file called `name` is to be written now."""
        return self._partial / name

    def finish(self, record: Mapping[str, Any]) -> Path:
        """Write `run.json`, rename the folder into place and return it; a name that is taken gets a number."""
        try:
            text = json.dumps(record, indent=2, ensure_ascii=False)
            self.path("run.json").write_text(text + "\n", encoding="utf-8")
            self._unlock()
            return self._rename()
        except OSError as error:
            self.abandon()
            raise FileError(f"output_dir: {self._output_dir} cannot be written: {error.strerror}.") from error

    def abandon(self) -> None:
        """Leave nothing of an unfinished folder, nor of the folder around it if the job made it and it is empty."""
        self._unlock()
        shutil.rmtree(self._partial, ignore_errors=True)
        if self._is_new:
            with contextlib.suppress(OSError):
                self._output_dir.rmdir()

    def _unlock(self) -> None:
        self._lock.release()
        self.path(_LOCK).unlink(missing_ok=True)  # it is no part of the run

    def _rename(self) -> Path:
        for number in range(1, 10_000):
            target = self._output_dir / (self._name if number == 1 else f"{self._name}-{number}")
            # A rename would replace an empty folder of that name; one that is not empty stops it.
            if target.exists():
                continue
            try:
                return self._partial.rename(target)
            except OSError:
                if not target.exists():
                    raise
        raise FileError(f"output_dir: {self._output_dir} has ten thousand runs called {self._name}.")


def _sweep(output_dir: Path) -> None:
    """Remove unfinished folders whose process is gone."""
    for partial in output_dir.glob(".*.partial"):
        lock = partial / _LOCK
        try:
            if lock.stat().st_mtime > time.time() - _YOUNG:
                continue
            with FileLock(lock, timeout=0):
                pass
        except (OSError, Timeout):  # no lock to judge by, or one that is held
            continue
        shutil.rmtree(partial, ignore_errors=True)


def run_name(prompt: str, seed: int) -> str:
    """Return `<date>-<time>-<words of the prompt>-<seed>`."""
    now = dt.datetime.now().strftime("%Y%m%d-%H%M%S")  # noqa: DTZ005  # names are in the user's own time
    return f"{now}-{slug(prompt)}-{str(seed)[:_LONGEST_SEED]}"


def slug(prompt: str) -> str:
    """Return the first words of a prompt as part of a file name: lower case, letters of any script, `-` between."""
    words = re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")
    cut = (
        words if len(words) <= _LONGEST_SLUG else words[: _LONGEST_SLUG + 1].rpartition("-")[0] or words[:_LONGEST_SLUG]
    )
    # A file name has 255 bytes; letters of some scripts take four.
    return cut.encode()[:120].decode(errors="ignore") or "clip"
