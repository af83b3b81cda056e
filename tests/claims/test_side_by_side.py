"""Claims in processes of their own: all are found and kept, and what goes wrong in one is said by name."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillmotion.claims.finding import Budget, Claim, Figure, Finding, Progress
from stillmotion.claims.kept import kept
from stillmotion.claims.side_by_side import measured
from stillmotion.errors import FileError, StillmotionError


def quick(budget: Budget) -> Iterator[Progress | Finding]:
    yield Progress(done=1, total=1)
    yield Finding(figures=(Figure(name="process", values=[os.getpid()]), Figure(name="seed", values=[budget.seed])))


def unreadable(budget: Budget) -> Iterator[Progress | Finding]:
    yield Progress(done=1, total=2)
    raise FileError(f"{budget.folder}/clip.mp4 cannot be read.")


def dying(budget: Budget) -> Iterator[Progress | Finding]:
    yield Progress(done=1, total=2)
    os._exit(3)


@pytest.fixture(autouse=True)
def _found_by_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1])


def claim(name: str, measure: object = quick) -> Claim:
    return Claim(name=name, sentence="", measured="", where="", measure=measure)  # type: ignore[arg-type]


def test_each_claim_has_a_process_of_its_own(tmp_path: Path) -> None:
    budget = Budget(folder=tmp_path, seed=11)
    claims = [claim(name) for name in ("C1", "C2")]
    told = list(measured(claims, budget, jobs=2))
    assert sorted(name for name, what in told if isinstance(what, Progress)) == ["C1", "C2"]
    found = {name: what[0] for name, what in told if not isinstance(what, Progress)}
    processes = {finding.figures[0].mean for finding in found.values()}
    assert len(processes) == 2
    assert os.getpid() not in processes
    for one in claims:
        before = kept(one, budget)
        assert before is not None
        assert before[0] == found[one.name]
        assert before[0].figures[1].mean == 11


@pytest.mark.slow
@pytest.mark.parametrize(("measure", "said"), [(unreadable, "clip.mp4 cannot be read"), (dying, "C2: .*ended with 3")])
def test_what_goes_wrong_in_one_is_said(tmp_path: Path, measure: object, said: str) -> None:
    with pytest.raises(StillmotionError, match=said):
        list(measured([claim("C1"), claim("C2", measure)], Budget(folder=tmp_path), jobs=2))
