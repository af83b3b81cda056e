"""A rater's way through a study: what is asked next, and what a filled-in form says."""

import string
from collections.abc import Mapping
from dataclasses import dataclass

from stillmotion.evaluation.study.answers import Answer, Answers, is_ranking
from stillmotion.evaluation.study.config import QUESTIONS
from stillmotion.evaluation.study.plan import Item, Study
from stillmotion.evaluation.study.shown import Gallery

LONGEST_NAME = 60


@dataclass(frozen=True, kw_only=True)
class Round:
    """One item, as one rater sees it."""

    rater: str
    """The rater's name."""
    number: int
    """Which of the rater's items it is, from 1."""
    total: int
    """Of how many."""
    answered: int
    """How many of them are answered."""
    item: Item
    """The prompt and its references."""
    letters: dict[str, str]
    """The method behind each letter: the page shows the letters only."""
    clips: dict[str, str]
    """The address of each letter's clip."""
    pictures: list[str]
    """The addresses of the reference pictures."""
    questions: dict[str, str]
    """The questions by name."""
    chosen: dict[str, dict[str, int]]
    """The places given so far: for each question, the place of each letter."""


class Rounds:
    """The rounds of a study."""

    def __init__(self, study: Study, answers: Answers, gallery: Gallery) -> None:
        self.study, self.answers, self._gallery = study, answers, gallery

    def next_number(self, rater: str) -> int | None:
        """Return the number of the rater's first item without an answer; None where all have one."""
        answered = self.answers.of(rater)
        order = self.study.order_of_items(rater)
        return next((n for n, index in enumerate(order, 1) if self.study.items[index].name not in answered), None)

    def round(self, rater: str, number: int, chosen: dict[str, dict[str, int]] | None = None) -> Round:
        """Return the rater's `number`-th item; `chosen` is shown in place of what was answered before."""
        index = self.study.order_of_items(rater)[number - 1]
        item, order = self.study.items[index], self.study.order_of_methods(rater, index)
        letters = dict(zip(string.ascii_uppercase, order, strict=False))
        before = self.answers.of(rater)
        if chosen is None and item.name in before:
            ranks = before[item.name].ranks
            chosen = {
                name: {letter: places[method] for letter, method in letters.items()} for name, places in ranks.items()
            }
        return Round(
            rater=rater,
            number=number,
            total=len(self.study.items),
            answered=len(before),
            item=item,
            letters=letters,
            clips={letter: self._gallery.clip(item.name, method) for letter, method in letters.items()},
            pictures=[self._gallery.picture(path) for path in item.references],
            questions={name: QUESTIONS[name] for name in self.study.questions},
            chosen=chosen or {},
        )

    def answer(self, shown: Round, form: Mapping[str, str], seconds: float | None = None) -> str:
        """Keep what a form says of a round; return what is wrong with it instead, empty if nothing."""
        places = places_of(shown, form)
        for name in shown.questions:
            if not is_ranking(places[name], list(shown.letters)):
                return f"“{shown.questions[name]}”: give each clip a place of its own."
        ranks = {
            name: {shown.letters[letter]: place for letter, place in given.items()} for name, given in places.items()
        }
        answer = Answer(rater=shown.rater, item=shown.item.name, ranks=ranks)
        self.answers.add(answer, list(shown.letters.values()), seconds)
        return ""


def places_of(shown: Round, form: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Return the places that a form gives to each letter for each question, as far as it gives any."""
    known = {str(place): place for place in range(1, len(shown.letters) + 1)}
    return {
        name: {letter: known[said] for letter in shown.letters if (said := form.get(f"{name}-{letter}", "")) in known}
        for name in shown.questions
    }


def rater_name(said: str) -> str:
    """Return a rater's name in one line of printable letters; empty if it is none."""
    name = " ".join("".join(letter if letter.isprintable() else " " for letter in said).split())
    return name if len(name) <= LONGEST_NAME else ""
