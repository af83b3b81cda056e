"""A config's fields as doors show them: name, kind, limits, default and the sentence beneath."""

import ast
import inspect
import itertools
import textwrap
from dataclasses import MISSING, dataclass, fields
from typing import Any

from stillmotion.config.kinds import Limits, choices_of, hints, in_words, unwrap


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One field of a config, as a door shows it."""

    name: str
    """The field's name and YAML key; its flag has `-` for `_`."""
    kind: Any
    """Its annotation, without limits."""
    required: bool
    """Whether it has no default."""
    default: Any
    """Its default; None where it is required."""
    limits: Limits
    """What its values keep to."""
    choices: tuple[str, ...]
    """The words that a value, or each item of a list, is one of; empty where it is free."""
    expected: str
    """What its values are: "an integer >= 1"."""
    sentence: str
    """What it means."""


def settings(cls: type) -> tuple[Setting, ...]:
    """Return the fields of a config dataclass in order."""
    found, docs, annotations = [], field_docs(cls), hints(cls)
    for field in fields(cls):
        kind, limits = unwrap(annotations[field.name])
        made = field.default_factory() if field.default_factory is not MISSING else None
        found.append(
            Setting(
                name=field.name,
                kind=kind,
                required=field.default is MISSING and field.default_factory is MISSING,
                default=made if field.default is MISSING else field.default,
                limits=limits or Limits(),
                choices=choices_of(annotations[field.name]),
                expected=in_words(annotations[field.name]),
                sentence=docs.get(field.name, ""),
            )
        )
    return tuple(found)


def field_docs(cls: type) -> dict[str, str]:
    """Return the sentence beneath each field, read from the source that the wheel ships, inherited fields included."""
    docs: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
        except (OSError, TypeError, SyntaxError):
            continue  # a class made without a source file has no sentences
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for field, below in itertools.pairwise(body):
            sentence = _text_of(below)
            if sentence and isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                docs[field.target.id] = sentence
    return docs


def _text_of(statement: ast.stmt) -> str:
    """Return the words of a bare string statement on one line; empty for any other statement."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return " ".join(statement.value.value.split()) if isinstance(statement.value.value, str) else ""
    return ""
