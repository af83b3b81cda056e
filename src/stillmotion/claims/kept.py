"""Findings kept from one run to the next: a report of an hour can be interrupted, or measured claim by claim."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from stillmotion.claims.brought import TRAINED_OVER
from stillmotion.claims.finding import Budget, Claim, Figure, Finding
from stillmotion.errors import FileError
from stillmotion.toyworld import brought_file, manifest, weights_folder
from stillmotion.version import __version__


def keep(claim: Claim, budget: Budget, finding: Finding, seconds: float) -> None:
    """Keep a finding, and how long it took, in the budget's folder."""
    path = _path(claim, budget)
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"made_of": _made_of(claim, budget), "seconds": seconds, "finding": asdict(finding)}
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def kept(claim: Claim, budget: Budget) -> tuple[Finding, float] | None:
    """Return what was found before by the same version from the same weights and as many clips; None where nothing was."""
    try:
        told = json.loads(_path(claim, budget).read_text(encoding="utf-8"))
        if told["made_of"] != _made_of(claim, budget):
            return None
        figures = tuple(_figure(figure) for figure in told["finding"]["figures"])
        return Finding(figures=figures), float(told["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # what cannot be read is measured again


def found_before(claim: Claim, budget: Budget, *, again: bool = False) -> tuple[Finding, float] | None:
    """Return what is kept of a claim, unless it is to be measured `again`; None where it is to be measured.

    Of a claim whose weights do not ship, what was found after its own training counts; raises `FileError` without that.
    """
    try:
        if not budget.retrain:
            claim.require()
    except FileError:
        if told := kept(claim, replace(budget, retrain=True)):
            return told
        raise
    return None if again else kept(claim, budget)


def _figure(told: Mapping[str, Any]) -> Figure:
    return Figure(**{field.name: told[field.name] for field in fields(Figure)})


def _path(claim: Claim, budget: Budget) -> Path:
    return budget.folder / "findings" / f"{claim.name}.json"


def _made_of(claim: Claim, budget: Budget) -> dict[str, Any]:
    """Return what a finding depends on."""
    folder = weights_folder()
    named = [brought_file(one.field, one.name, folder).relative_to(folder).as_posix() for one in claim.needed]
    used = {
        path: told
        for path, told in manifest(folder).items()
        if path.split("/", 1)[0] not in TRAINED_OVER or any(path.startswith(name) for name in named)
    }
    return {
        "version": __version__,
        "weights": sha256(json.dumps(used, sort_keys=True).encode()).hexdigest(),
        "measured": claim.measured,
        "share": budget.share,
        "seed": budget.seed,
        "steps": budget.num_inference_steps,
        "retrain": budget.retrain,
    }
