"""Run folders: names that any file system takes, whole or not there."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stillmotion.animate.run_folder import RunFolder, slug
from stillmotion.errors import FileError


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red ball, rolling right", "a-red-ball-rolling-right"),
        ("  ../../etc/passwd\0 ", "etc-passwd"),
        ("!!!", "clip"),
        ("ein Fuchs läuft", "ein-fuchs-läuft"),
        ("赤いボール", "赤いボール"),
        ("word " * 40, "word-word-word-word-word-word-word-word-word"),
        ("x" * 300, "x" * 48),
    ],
)
def test_slugs(prompt: str, expected: str) -> None:
    assert slug(prompt) == expected
    assert len(slug("赤" * 300).encode()) <= 120


def test_it_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a" / "outputs", "a ball", 2**300)
    folder.path("clip.gif").write_bytes(b"x")
    assert [entry.name[0] for entry in (tmp_path / "a" / "outputs").iterdir()] == ["."]
    made = folder.finish({"seed": "7"})
    assert sorted(entry.name for entry in made.iterdir()) == ["clip.gif", "run.json"]
    assert re.match(r"\d{8}-\d{6}-a-ball-\d{24}$", made.name)
    given_up = RunFolder(tmp_path / "b", "a ball", 7)
    given_up.abandon()
    assert not (tmp_path / "b").exists()
    kept = RunFolder(tmp_path / "a" / "outputs", "a ball", 7)
    kept.abandon()
    assert list((tmp_path / "a" / "outputs").iterdir()) == [made]


def test_what_a_killed_process_left_is_swept_away_and_nothing_else(tmp_path: Path) -> None:
    """By a real process, killed while it fills its folder."""
    told = (
        "import sys, time; from pathlib import Path; from stillmotion.animate.run_folder import RunFolder; "
        f"folder = RunFolder(Path({str(tmp_path)!r}), 'a ball', 7); folder.path('clip.mp4').write_bytes(b'half'); "
        "print('filled', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", told], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"filled\n"
        (theirs,) = tmp_path.iterdir()
        _age(theirs)
        RunFolder(tmp_path, "a box", 8).abandon()
        assert list(tmp_path.iterdir()) == [theirs]  # at work
        process.kill()
    _age(theirs)  # anew: before filelock 4, who waited for a lock touched its file
    foreign, young = tmp_path / ".foreign.partial", RunFolder(tmp_path, "a star", 9)
    assert not theirs.exists()
    foreign.mkdir()
    made = RunFolder(tmp_path, "a box", 8).finish({})
    assert set(tmp_path.iterdir()) == {foreign, young.path("").absolute(), made}
    assert [entry.name for entry in made.iterdir()] == ["run.json"]
    young.abandon()


def _age(partial: Path) -> None:
    """Let a folder look as if it had been begun an hour ago."""
    then = time.time() - 3600
    os.utime(partial / ".lock", (then, then))


def test_a_place_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match=r"output_dir: .* cannot be made"):
        RunFolder(tmp_path / "file" / "outputs", "a ball", 7)
