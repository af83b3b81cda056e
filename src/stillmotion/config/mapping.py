"""Mappings into configs and back: types, limits, unknown keys."""

import difflib
import math
import operator
import os
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from stillmotion.config.kinds import Limits, arms, hints, in_words, is_mapping, is_sequence, unwrap
from stillmotion.config.text import parse_yaml
from stillmotion.errors import ConfigError

T = TypeVar("T")

_NONE = ("none", "null", "~", "")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_EXACT_IN_JSON = 2**53  # beyond it JSON readers that hold numbers as doubles change the digits


class _UnfitError(Exception):
    """The value is not of this kind; another member of a union may take it."""


def from_dict(cls: type[T], mapping: Mapping[str, Any], where: str = "") -> T:
    """Return the dataclass `cls` of `mapping`, its values checked and brought to their types.

    Text is read as the field's type, since flags and forms have nothing else. Raises `ConfigError` naming every wrong
    key and value at once; an unknown key comes with the nearest one that exists. `where` is the outer key with its dot.
    """
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]  # any dataclass
    annotations = hints(cls)
    problems: list[str] = []
    values: dict[str, Any] = {}
    for key, value in mapping.items():
        if key not in known:
            problems.append(_unknown(where, str(key), list(known)))
            continue
        try:
            values[key] = coerce(annotations[key], _filled(value, known[key]), f"{where}{key}")
        except ConfigError as error:
            problems.append(str(error))
    for name, field in known.items():
        if name not in mapping and field.default is MISSING and field.default_factory is MISSING:
            problems.append(f"{where}{name}: missing; expected {in_words(annotations[name])}")
    raise_all(problems)
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError("\n".join(f"{where}{line}" for line in str(error).splitlines())) from None


def _filled(value: Any, field: Field[Any]) -> Any:
    """Return a section that was given in part with the rest of it from the field's own default."""
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    if not isinstance(value, Mapping) or not is_dataclass(default):
        return value
    return {part.name: getattr(default, part.name) for part in fields(default)} | dict(value)


def to_dict(config: Any) -> dict[str, Any]:
    """Return a dataclass as JSON holds it: seeds and huge integers, paths and adapters as text, tuples as lists."""
    found = hints(type(config))
    return {field.name: _plain(getattr(config, field.name), unwrap(found[field.name])[1]) for field in fields(config)}


def raise_all(problems: Sequence[str]) -> None:
    """Raise one `ConfigError` of all problems, a line each; do nothing if there are none."""
    if problems:
        raise ConfigError("\n".join(problems))


def coerce(annotation: Any, value: Any, where: str, limits: Limits | None = None) -> Any:
    """Return `value` as the annotated type within its limits, or raise `ConfigError` that begins with `where`."""
    kind, own = unwrap(annotation)
    known = own or limits or Limits()
    members = [arm for arm in arms(kind) if arm is not types.NoneType]
    if types.NoneType in arms(kind) and (value is None or (isinstance(value, str) and value.strip().lower() in _NONE)):
        return None
    for arm in members:
        try:
            found = _read(arm, value, where, known)
        except _UnfitError:
            continue
        except ConfigError as error:
            meant = len(members) == 1 or (is_mapping(arm) and isinstance(value, Mapping))
            if meant and str(error).startswith(f"{where}."):
                raise  # the message of the nested key or item is the most exact one
            continue
        if known.allows(found):
            return found
    raise ConfigError(f"{where}: expected {in_words(annotation, limits)}, got {_shown(value)}")


def _read(kind: Any, value: Any, where: str, limits: Limits) -> Any:
    """Return `value` as the kind, which is no union; raise `_UnfitError`, or `ConfigError` for a wrong part of it."""
    if kind is Any:
        return value
    if typing.get_origin(kind) is Literal:
        for word in typing.get_args(kind):
            if value == word or value == str(word):
                return word
        raise _UnfitError
    if is_sequence(kind):
        return _read_sequence(kind, value, where, limits)
    if is_mapping(kind):
        return _read_mapping(kind, value, where, limits)
    if isinstance(kind, type) and is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    return _read_scalar(kind, value)


def _read_sequence(kind: Any, value: Any, where: str, limits: Limits) -> Any:
    """Return the items; text is `[a, b]` or, where an item is not free text that may hold commas, `a,b`."""
    container, inside = typing.get_origin(kind) or kind, typing.get_args(kind) or (Any, ...)
    if isinstance(value, str):
        text = value.strip()
        item = unwrap(inside[0])[0]
        free = item is str or getattr(item, "free_text", False)
        value = parse_yaml(text) if text.startswith("[") else [text] if free and text else _parts(text)
    elif not isinstance(value, list | tuple):
        value = [value]
    fixed = container is tuple and Ellipsis not in inside
    if not isinstance(value, list | tuple) or (fixed and len(value) != len(inside)):
        raise _UnfitError
    kinds = inside if fixed else (inside[0],) * len(value)
    parts = enumerate(zip(kinds, value, strict=True))
    return container([coerce(item, part, f"{where}.{index}", limits) for index, (item, part) in parts])


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text else []


def _read_mapping(kind: Any, value: Any, where: str, limits: Limits) -> dict[Any, Any]:
    value = parse_yaml(value) if isinstance(value, str) else value
    if not isinstance(value, Mapping):
        raise _UnfitError
    key_kind, item_kind = typing.get_args(kind) or (Any, Any)
    keys = [coerce(key_kind, key, f"{where}.{key}") for key in value]
    return {key: coerce(item_kind, value[raw], f"{where}.{raw}", limits) for key, raw in zip(keys, value, strict=True)}


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
    if isinstance(value, kind):
        return value
    if isinstance(value, str | os.PathLike) and hasattr(kind, "from_text"):
        try:
            return kind.from_text(os.fspath(value))
        except ConfigError as error:
            # It names its own part that is wrong, as a mapping's errors do.
            raise ConfigError(f"{where}.{error}" if getattr(kind, "free_text", False) else str(error)) from error
    value = parse_yaml(value) if isinstance(value, str) else value
    if not isinstance(value, Mapping):
        raise _UnfitError
    return from_dict(kind, value, f"{where}.")


def _read_scalar(kind: Any, value: Any) -> Any:
    if kind is str and isinstance(value, str | os.PathLike):
        return os.fspath(value)
    if kind is Path and isinstance(value, str | os.PathLike) and str(value).strip():
        return Path(value)
    if kind is bool:
        return _read_bool(value)
    if kind in (int, float) and not isinstance(value, bool):
        try:
            number = float(value) if kind is float else int(value) if isinstance(value, str) else operator.index(value)
        except (ValueError, TypeError, OverflowError):
            raise _UnfitError from None
        if math.isfinite(number) if kind is float else True:
            return number
    if kind not in (str, Path, int, float) and isinstance(kind, type) and isinstance(value, kind):
        return value
    raise _UnfitError


def _read_bool(value: Any) -> bool:
    text = value.strip().lower() if isinstance(value, str) else ""
    if isinstance(value, bool) or text in _TRUE or text in _FALSE:
        return value if isinstance(value, bool) else text in _TRUE
    raise _UnfitError


def _plain(value: Any, limits: Limits | None) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if (limits and limits.as_text) or abs(value) > _EXACT_IN_JSON else value
    if isinstance(value, list | tuple):
        return [_plain(item, limits) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item, limits) for key, item in value.items()}
    if isinstance(value, Path) or (hasattr(type(value), "from_text") and not getattr(value, "free_text", False)):
        return str(value)
    return to_dict(value) if is_dataclass(value) else value


def _unknown(where: str, key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key.replace("-", "_"), known, n=1, cutoff=0.5)
    hint = f"the nearest is '{near[0]}'" if near else f"the keys are {', '.join(known)}"
    return f"{where}{key}: unknown key; {hint}"


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
