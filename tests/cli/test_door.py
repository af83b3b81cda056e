"""The command line's door: verbs, help, errors, exit codes."""

import subprocess
import sys
import time

import pytest

from stillmotion.cli.door import VERBS, find, main
from stillmotion.errors import ConfigError


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "stillmotion", *words], capture_output=True, text=True, check=False)


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown and entry.sentence in shown for name, entry in VERBS.items())


def test_no_verb_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "verbs:" in capsys.readouterr().out


@pytest.mark.parametrize("name", VERBS)
def test_each_verb_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert find(name).description.split(".")[0].split()[0] in shown
    assert "--debug" in shown


def test_group_lists_its_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 2
    assert "bench plug" in (shown := capsys.readouterr().out)
    assert "animate  " not in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["animte", "x"], "Unknown verb 'animte'; the nearest verb is animate."),
        (["bench", "stp"], "Unknown verb 'bench stp'; the nearest verb is bench step."),
        (["inspect"], "The following arguments are required: FILE."),
        (["inspect", "a.ckpt", "--jsn"], "Unknown flag --jsn; the nearest flag is --json."),
        (["convert", "a.ckpt", "--to", "difusers"], "Argument --to: invalid choice: 'difusers'"),
        (
            ["convert", "a.ckpt", "b.ckpt", "--to", "diffusers"],
            "Unexpected 'b.ckpt'; a text of several words stands in",
        ),
    ],
)
def test_mistakes_are_named_with_the_nearest(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "--help" in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "no-such-file.ckpt", "--nonsense", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_has_its_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("stillmotion.cli.door._run", interrupted)
    assert main(["animate", "x"]) == 130
    assert "Stopped." in capsys.readouterr().err


def test_our_own_faults_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("stillmotion.cli.door._run", broken)
    with pytest.raises(ZeroDivisionError):
        main(["animate", "x"])


def test_errors_in_red_only_where_somebody_watches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["nonsense"])
    assert "\x1b" not in capsys.readouterr().err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    main(["nonsense"])
    assert "\x1b[1;31merror: " in capsys.readouterr().err
    main(["nonsense", "--plain"])
    assert "\x1b" not in capsys.readouterr().err
    monkeypatch.setenv("NO_COLOR", "1")
    main(["nonsense"])
    assert "\x1b" not in capsys.readouterr().err


def test_the_error_of_usage_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="Unknown flag"):
        parse("inspect", ["--nonsense", "x"])


def parse(name: str, words: list[str]) -> object:
    from stillmotion.cli.parsing import Parser

    parser = Parser(f"stillmotion {name}", "")
    find(name).add_arguments(parser)
    return parser.parse(words)


def test_process_help_and_version_come_at_once() -> None:
    began = time.perf_counter()
    version, shown = run("--version"), run("--help")
    seconds = (time.perf_counter() - began) / 2
    assert version.returncode == shown.returncode == 0
    assert version.stdout.startswith("stillmotion 0.")
    assert "animate" in shown.stdout
    assert seconds < 2.0  # about 0.3 on an idle machine; PyTorch alone would take as long as this


def test_process_errors_end_with_two() -> None:
    ended = run("inspekt", "x")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: Unknown verb 'inspekt'; the nearest verb is inspect.\n")
