"""What claims need beside the embedded models: shipped files, or the same trained anew by the recipe's own stages."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from stillmotion.claims.finding import Budget, Claim, Finding, Needed, Progress
from stillmotion.claims.recipe import RecipeConfig, cook
from stillmotion.toyworld import brought_file, weights_folder

TRAINED_OVER = ("ablations", "motion-loras", "loras", "embeddings", "domain-adapters", "controls")
"""Folders of the weights that hold what is trained over the models themselves."""


def measuring(claim: Claim, budget: Budget) -> Iterator[Progress | Finding]:
    """Yield the progress of a claim and at last its finding; what it needs is trained anew first where that is asked for."""
    if budget.retrain:
        config = recipe_of(budget)
        for needed in claim.needed:
            for step in cook(config, only=needed.name):
                yield Progress(done=step.done.step, total=step.done.num_steps, what=f"training {needed.name}")
    yield from claim.measure(budget)


def file_of(needed: Needed, budget: Budget) -> str:
    """Return the file: that of the weights, or the one that was trained anew."""
    folder = Path(recipe_of(budget).folder) / "weights" if budget.retrain else None
    return str(brought_file(needed.field, needed.name, folder))


def recipe_of(budget: Budget) -> RecipeConfig:
    """Return the recipe as it is run for claims: in their folder, over a copy of the embedded models."""
    weights = budget.folder / "weights"
    if not weights.exists():
        shutil.copytree(weights_folder(), weights, ignore=shutil.ignore_patterns(*TRAINED_OVER))
    return RecipeConfig(folder=str(budget.folder))
