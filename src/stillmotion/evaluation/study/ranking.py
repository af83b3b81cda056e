"""What the raters said: the Average User Ranking of each method, and whether the methods differ at all."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillmotion.errors import FileError
from stillmotion.evaluation.intervals import can_resample, interval_of
from stillmotion.evaluation.study.answers import Answer, read_answers

FEWEST_BLOCKS = 2


@dataclass(frozen=True, kw_only=True)
class SignificanceTest:
    """A test of "all methods are alike": Friedman's over blocks of ranks; of two methods the sign test."""

    name: str
    """Which test."""
    blocks: str
    """What is taken for independent: "answers" or "raters"."""
    num_blocks: int
    """How many there are."""
    statistic: float
    """Friedman's chi-squared; of the sign test the share of blocks in which the first method is better."""
    p: float
    """How likely so large a difference is by chance."""


@dataclass(frozen=True, kw_only=True)
class QuestionResult:
    """What was said to one question."""

    question: str
    """Its name."""
    average: Mapping[str, float]
    """The Average User Ranking of each method, as in the paper: the best place of k methods counts k, the worst 1."""
    interval: Mapping[str, tuple[float, float] | None]
    """Its 95 % bootstrap interval over raters, or over answers where there is one rater."""
    tests: tuple[SignificanceTest, ...]
    """Over answers, and over raters where there are several."""


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What was said in a study."""

    methods: tuple[str, ...]
    """Their names."""
    num_raters: int
    """How many people answered."""
    num_answers: int
    """How many items they ranked, together."""
    questions: tuple[QuestionResult, ...]
    """What was said to each question."""
    notes: tuple[str, ...]
    """What the reader should know."""

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON holds it."""
        return {
            "methods": list(self.methods),
            "num_raters": self.num_raters,
            "num_answers": self.num_answers,
            "questions": {
                one.question: {
                    "average_user_ranking": dict(one.average),
                    "interval": {name: list(ends) if ends else None for name, ends in one.interval.items()},
                    "tests": [dict(vars(test)) for test in one.tests],
                }
                for one in self.questions
            },
            "notes": list(self.notes),
        }


def rank(path: Path, *, seed: int = 0) -> StudyResult:
    """Return what the answers in a file say; raise `FileError` where it is none or has no answer yet."""
    header, answers = read_answers(path)
    if not answers:
        raise FileError(f"{path}: nobody has answered yet.")
    methods = tuple(header["methods"])
    raters = {answer.rater for answer in answers}
    notes = (
        []
        if can_resample()
        else ["Tests and intervals are left out: scipy is not installed (pip install 'stillmotion[evaluation]')."]
    )
    if len(raters) > 1:
        notes.append(
            "A rater's answers are not independent of each other: where both are told, trust the test over raters."
        )
    results = [_question(name, methods, answers, seed) for name in header["questions"]]
    return StudyResult(
        methods=methods, num_raters=len(raters), num_answers=len(answers), questions=tuple(results), notes=tuple(notes)
    )


def _question(name: str, methods: Sequence[str], answers: Sequence[Answer], seed: int) -> QuestionResult:
    # A row per answer, a column per method: the best place of k methods is worth k.
    scores = np.array(
        [[len(methods) + 1 - answer.ranks[name][method] for method in methods] for answer in answers], float
    )
    rows_of: dict[str, list[int]] = defaultdict(list)
    for index, answer in enumerate(answers):
        rows_of[answer.rater].append(index)
    by_rater = np.array([scores[rows].mean(0) for rows in rows_of.values()])
    drawn = by_rater if len(by_rater) > 1 else scores
    interval: dict[str, tuple[float, float] | None] = dict.fromkeys(methods)
    tests: list[SignificanceTest] = []
    if can_resample():
        for column, method in enumerate(methods):
            interval[method] = interval_of(drawn[:, column].tolist(), seed=seed, purpose=f"{name} {method}")
        for blocks, rows in (("answers", scores), ("raters", by_rater)):
            if len(rows) >= FEWEST_BLOCKS:
                tests.append(_test(blocks, rows))
    average = dict(zip(methods, scores.mean(0).tolist(), strict=True))
    return QuestionResult(question=name, average=average, interval=interval, tests=tuple(tests))


def _test(blocks: str, rows: np.ndarray) -> SignificanceTest:
    """Return the test over rows of scores, a column per method."""
    from scipy.stats import binomtest, friedmanchisquare  # noqa: PLC0415  # an extra

    if rows.shape[1] == 2:
        better, worse = int((rows[:, 0] > rows[:, 1]).sum()), int((rows[:, 0] < rows[:, 1]).sum())
        p = binomtest(better, better + worse).pvalue if better + worse else 1.0
        share = better / (better + worse) if better + worse else 0.5
        return SignificanceTest(name="sign test", blocks=blocks, num_blocks=len(rows), statistic=share, p=float(p))
    if (np.ptp(rows, axis=1) == 0).all():  # all alike in every block: Friedman's has nothing to divide by
        return SignificanceTest(name="Friedman", blocks=blocks, num_blocks=len(rows), statistic=0.0, p=1.0)
    found = friedmanchisquare(*rows.T)
    return SignificanceTest(
        name="Friedman", blocks=blocks, num_blocks=len(rows), statistic=float(found.statistic), p=float(found.pvalue)
    )
