"""`stillmotion claims`: what it reports of findings that a folder keeps, and which claims it measures at all."""

from pathlib import Path

import pytest

from stillmotion.claims.all_claims import CLAIMS
from stillmotion.claims.finding import Budget, Figure, Finding
from stillmotion.claims.kept import keep
from stillmotion.cli import main

FOUND = Finding(figures=(Figure(name="right", values=[True, False], at_least=0.4, as_share=True),))


def test_what_was_found_after_a_training_of_its_own_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The two modules of C5 are too large to ship."""
    keep(CLAIMS["C5"], Budget(folder=tmp_path, retrain=True), FOUND, 12.0)
    written = tmp_path / "claims.md"
    assert main(["claims", "C5", "--folder", str(tmp_path), "--write", str(written)]) == 0
    assert "C5 holds." in capsys.readouterr().err
    assert f"| C5 {CLAIMS['C5'].sentence} | yes | 0.2 |" in written.read_text()
    assert main(["claims", "C5", "--folder", str(tmp_path), "--seed", "8"]) == 2
    assert "toyworld train --only transformer" in capsys.readouterr().err


def test_a_finding_of_what_ships_counts_only_as_it_ships(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report is of the weights."""
    keep(CLAIMS["C1"], Budget(folder=tmp_path), FOUND, 12.0)
    assert main(["claims", "C1", "--folder", str(tmp_path)]) == 0
    assert "C1 holds." in capsys.readouterr().err


def test_names_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "C11"]) == 2
    assert "C11" in capsys.readouterr().err
