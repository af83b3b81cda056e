"""What a field's values are: limits, the parts of an annotation, and both in words."""

import inspect
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a value must keep to, beside its type; it stands in the field's `Annotated[...]`.

    On a list or mapping the limits hold for each item.
    """

    minimum: int | float | None = None
    """The smallest value allowed."""
    maximum: int | float | None = None
    """The largest value allowed."""
    multiple_of: int | None = None
    """Integers must divide by this."""
    choices: tuple[str, ...] = ()
    """The words allowed, where a `Literal` cannot say them."""
    blank: bool = True
    """Whether text may be empty or only spaces."""
    as_text: bool = False
    """Whether an integer is stored as text, exact at any size (seeds)."""

    def allows(self, value: Any) -> bool:
        """Return whether `value`, already of the right type, keeps to the limits."""
        if isinstance(value, str):
            return (self.blank or bool(value.strip())) and (not self.choices or value in self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        large_enough = self.minimum is None or value >= self.minimum
        small_enough = self.maximum is None or value <= self.maximum
        return large_enough and small_enough and not (self.multiple_of and value % self.multiple_of)

    def __str__(self) -> str:
        """Return the numeric limits as they follow "an integer"; empty where there are none."""
        low = "" if self.minimum is None else f"{self.minimum:g}"
        high = "" if self.maximum is None else f"{self.maximum:g}"
        bounds = f" from {low} to {high}" if low and high else f" >= {low}" if low else f" <= {high}" if high else ""
        return bounds + (f" that is a multiple of {self.multiple_of}" if self.multiple_of else "")


def hints(cls: type) -> dict[str, Any]:
    """Return each field's annotation, names resolved, `Annotated` kept, inherited fields first."""
    found: dict[str, Any] = {}
    for owner in reversed(cls.__mro__):
        found.update(inspect.get_annotations(owner, eval_str=True))
    return found


def unwrap(annotation: Any) -> tuple[Any, Limits | None]:
    """Return the plain annotation and its limits, if it names any."""
    if typing.get_origin(annotation) is not Annotated:
        return annotation, None
    kind, *extras = typing.get_args(annotation)
    return kind, next((extra for extra in extras if isinstance(extra, Limits)), None)


def arms(kind: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the kind alone."""
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)


def is_sequence(kind: Any) -> bool:
    """Return whether values of the kind are lists or tuples."""
    return (typing.get_origin(kind) or kind) in (tuple, list)


def is_mapping(kind: Any) -> bool:
    """Return whether values of the kind are mappings of free keys."""
    return (typing.get_origin(kind) or kind) in (dict, Mapping)


def choices_of(annotation: Any) -> tuple[str, ...]:
    """Return the words that a value, or each item of a list, must be one of; empty where it is free."""
    kind, limits = unwrap(annotation)
    if limits and limits.choices:
        return limits.choices
    if is_sequence(kind):
        return choices_of(typing.get_args(kind)[0]) if typing.get_args(kind) else ()
    literals = [arm for arm in arms(kind) if typing.get_origin(arm) is Literal]
    return tuple(str(word) for literal in literals for word in typing.get_args(literal))


def in_words(annotation: Any, limits: Limits | None = None) -> str:
    """Return what a value of the annotation is: "an integer >= 1 or none"."""
    kind, own = unwrap(annotation)
    known = own or limits or Limits()
    words = [_arm_in_words(arm, known) for arm in arms(kind) if arm is not types.NoneType]
    return " or ".join(words + (["none"] if types.NoneType in arms(kind) else []))


def _arm_in_words(kind: Any, limits: Limits) -> str:
    inside = typing.get_args(kind)
    if typing.get_origin(kind) is Literal or (limits.choices and kind is str):
        return "one of " + ", ".join(str(word) for word in limits.choices or inside)
    if is_sequence(kind):
        items = [in_words(part, limits) for part in inside if part is not Ellipsis]
        if typing.get_origin(kind) is tuple and Ellipsis not in inside:
            return f"a list of {len(items)} ({', '.join(items)})"
        return f"a list, each item {items[0]}" if items else "a list"
    if is_mapping(kind) or (is_dataclass(kind) and not hasattr(kind, "from_text")):
        return "a mapping of keys to values"
    if kind is str:
        return "text" if limits.blank else "text that is not empty"
    names = {int: "an integer", float: "a number", bool: "true or false", Path: "a path", Any: "any value"}
    return getattr(kind, "in_words", None) or names.get(kind, getattr(kind, "__name__", str(kind))) + str(limits)
