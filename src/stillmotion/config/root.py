"""The root of every job's config."""

import os
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import yaml

from stillmotion.config.fields import field_docs
from stillmotion.config.kinds import hints
from stillmotion.config.mapping import coerce, from_dict, raise_all, to_dict
from stillmotion.config.text import read_yaml, with_overrides
from stillmotion.errors import ConfigError

T = TypeVar("T")
C = TypeVar("C", bound="Config")  # not `Self`: the checker that runs the annotations in tests does not take it


@dataclass(frozen=True, kw_only=True)
class Config:
    """A config that is checked when made, however it is made, and written back as it was read."""

    # `coerce` is the one checker of these fields: a run-time type checker in front of it would refuse the text and
    # integers that it brings to their types.
    __no_type_check__ = True

    def __post_init__(self) -> None:
        problems: list[str] = []
        annotations = hints(type(self))
        for field in fields(self):
            try:
                value = coerce(annotations[field.name], getattr(self, field.name), field.name)
                object.__setattr__(self, field.name, value)
            except ConfigError as error:
                problems.append(str(error))
        raise_all(problems)
        self.check()

    def check(self) -> None:
        """Refuse by `ConfigError` what only several fields together make wrong; each field is already right."""

    @classmethod
    def from_dict(cls: type[C], mapping: Mapping[str, Any]) -> C:
        """Return the config of a mapping; see `from_dict`."""
        return from_dict(cls, mapping)

    @classmethod
    def from_yaml(cls: type[C], path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> C:
        """Return the config of a YAML file, changed by `key=value` overrides; see `from_yaml`."""
        return from_yaml(cls, path, overrides)

    def to_dict(self) -> dict[str, Any]:
        """Return the config as JSON holds it; `from_dict` reads it back to an equal one."""
        return to_dict(self)

    def to_yaml(self, *, sentences: bool = False) -> str:
        """Return the config as YAML text; see `to_yaml`."""
        return to_yaml(self, sentences=sentences)

    def replace(self: C, **changes: Any) -> C:
        """Return a copy with some fields changed and everything checked again."""
        return replace(self, **changes)


def from_yaml(cls: type[T], path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> T:
    """Return the dataclass `cls` of a YAML file, changed by `key=value` overrides.

    Raises `FileError` for a file that cannot be read, `ConfigError` that begins with its name for what stands in it.
    """
    try:
        return from_dict(cls, with_overrides(read_yaml(path), overrides))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def to_yaml(config: Any, *, sentences: bool = False) -> str:
    """Return a dataclass as YAML text, each field's sentence above it as a comment if asked."""
    docs, parts = field_docs(type(config)), []
    for key, value in to_dict(config).items():
        if sentences and docs.get(key):
            parts.append(textwrap.fill(docs[key], 100, initial_indent="# ", subsequent_indent="# ") + "\n")
        parts.append(yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=1000))
    return "".join(parts)
