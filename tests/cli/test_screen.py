"""What is shown, where somebody watches and where nobody does."""

import pytest

from stillmotion.cli.screen import Screen


def test_lines_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    with screen.progress() as progress:
        progress.show("loading", 0, None)
        for step in range(1, 26):
            progress.show("denoising", step, 25)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[0] == "loading"
    assert shown.err.splitlines()[1].startswith("denoising: 1/25, ")
    assert shown.err.splitlines()[-1] == "denoising: 25/25"
    assert len(shown.err.splitlines()) == 3


def test_what_advances_side_by_side_is_said_once_and_what_begins_anew_again(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen().progress() as progress:
        for done in (1, 2, 3):
            progress.show("C1", done, 9)
            progress.show("C2", done, 9)
        progress.show("C1", 1, 9)
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == ["C1: 1/9", "C2: 1/9", "C1: 1/9"]


def test_bars_where_somebody_watches(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    with Screen().progress() as progress:
        progress.show("denoising", 1, 2)
        progress.show("denoising", 2, 2)
    assert "━" in (shown := capsys.readouterr().err)
    assert "2/2" in shown


def test_results_are_exact_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    long = "outputs/[bold]a b[/bold]/" + 40 * "long-name/"
    screen.result(long)
    screen.table(["file", "kind"], [[long, "x"], ["b", "y"]])
    screen.facts([("kind", "motion_module"), ("rank", "4")])
    assert capsys.readouterr().out == f"{long}\nfile\tkind\n{long}\tx\nb\ty\nkind  motion_module\nrank  4\n"
