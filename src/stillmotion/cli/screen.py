"""The terminal: results on standard output, progress and errors beside it on standard error.

Where nobody watches (a pipe, a log file, `--plain`, NO_COLOR) there are no colours and no bars, only lines.
"""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

SECONDS_BETWEEN_LINES = 10.0


class Screen:
    """Where a verb shows what it has to say."""

    def __init__(self, *, plain: bool = False) -> None:
        self.plain = plain or "NO_COLOR" in os.environ or not sys.stderr.isatty()
        # A pipe has no width: nothing is wrapped or cut there.
        terminal = False if self.plain else None  # None: rich finds out
        self._out = Console(file=sys.stdout, highlight=False, force_terminal=terminal)
        self._err = Console(file=sys.stderr, highlight=False, force_terminal=terminal, soft_wrap=True)

    def result(self, text: str) -> None:
        """Print what was asked for, on standard output, exactly."""
        if sys.stdout.isatty() and not self.plain:
            self._err.print(text, markup=False)  # the same terminal; above a bar that is moving there
        else:
            print(text, flush=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table on standard output; tabs part the columns where nobody watches."""
        if self.plain or not sys.stdout.isatty():
            for row in [columns, *rows]:
                self.result("\t".join(row))
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._out.print(table)

    def facts(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Print names and what they are, a line each, on standard output."""
        width = max((len(name) for name, _ in pairs), default=0)
        for name, text in pairs:
            self.result(f"{name:<{width}}  {text}")

    def note(self, text: str) -> None:
        """Say something by the way, on standard error."""
        self._err.print(text, markup=False, style="dim")

    def error(self, text: str) -> None:
        """Say what is wrong, in red, on standard error."""
        self._err.print(Text("error: ", style="bold red").append(text, style="red"))

    def progress(self) -> "ProgressView":
        """Return a context that shows stages as they advance."""
        return ProgressView(self._err, plain=self.plain)


class ProgressView:
    """A bar per stage with the time left, or now and then a line where nobody watches."""

    def __init__(self, console: Console, *, plain: bool) -> None:
        self._console = console
        self._bars = None if plain else _bars(console)
        self._stages: dict[str, _Stage] = {}
        self._said = 0.0
        self._last = time.monotonic()

    def __enter__(self) -> "ProgressView":
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def show(self, stage: str, done: int, total: int | None, detail: str = "") -> None:
        """Show that `done` of `total` parts of `stage` are finished; no total where it is not known."""
        known, now = self._stages.get(stage), time.monotonic()
        fresh = known is None or done < known.done
        if known is None or fresh:  # its first part has taken since the last one's end
            task = self._bars.add_task(stage, total=total) if self._bars else None
            known = self._stages[stage] = _Stage(self._last, task)
        known.done, self._last = done, now
        if self._bars and known.task is not None:
            self._bars.update(known.task, completed=done, total=total, description=f"{stage} {detail}".strip())
        elif fresh or done == total or now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            self._console.print(f"{stage}{_counted(done, total, now - known.began)} {detail}".rstrip(), markup=False)


@dataclass
class _Stage:
    """One of the stages that advance, one after another or side by side; one that is behind itself has begun anew."""

    began: float
    task: TaskID | None
    done: int = 0


def _bars(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(True))
    return Progress(*columns, console=console, redirect_stdout=False)


def _counted(done: int, total: int | None, seconds: float) -> str:
    """Return ": 5/25, 12 s left" as far as it is known."""
    if total is None:
        return ""
    left = f", {seconds / done * (total - done):.0f} s left" if 0 < done < total else ""
    return f": {done}/{total}{left}"
