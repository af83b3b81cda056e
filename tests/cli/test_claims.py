"""`stillmotion claims`: what it reports of findings that a folder keeps, and which claims it measures at all."""

from dataclasses import replace
from pathlib import Path

import pytest

from stillmotion.claims.all_claims import CLAIMS
from stillmotion.claims.finding import Budget, Figure, Finding
from stillmotion.claims.kept import found_before, keep
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


def test_what_was_found_before_is_not_measured_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(CLAIMS["C1"], Budget(folder=tmp_path), FOUND, 12.0)
    assert main(["claims", "C1", "--folder", str(tmp_path)]) == 0
    assert "C1 holds." in capsys.readouterr().err


def test_of_what_ships_only_what_was_found_as_it_ships_counts(tmp_path: Path) -> None:
    budget = Budget(folder=tmp_path)
    keep(CLAIMS["C1"], replace(budget, retrain=True), FOUND, 12.0)
    assert found_before(CLAIMS["C1"], budget) is None
    assert found_before(CLAIMS["C1"], replace(budget, retrain=True)) == (FOUND, 12.0)
    assert found_before(CLAIMS["C1"], replace(budget, retrain=True), again=True) is None


def test_names_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "C11"]) == 2
    assert "C11" in capsys.readouterr().err
