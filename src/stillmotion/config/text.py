"""YAML and `key=value` text into plain mappings, safely."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from stillmotion.errors import ConfigError, FileError


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, which YAML readers otherwise drop without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ConfigError(f"line {key.start_mark.line + 1}: the key '{key.value}' is given twice")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str) -> Any:
    """Return what YAML text holds; raise `ConfigError` that names the broken line."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  # it is a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{line}this is not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"this is not YAML: {error}") from error


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the mapping in a YAML file; raise `FileError` if it cannot be read, `ConfigError` if it is broken."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise FileError(f"{path}: expected a YAML config, but it cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: expected a YAML config, but it is not text.") from error
    loaded = parse_yaml(text)
    if loaded is not None and not isinstance(loaded, dict):
        raise ConfigError(f"expected `key: value` lines, got a {type(loaded).__name__}")
    return loaded or {}


def with_overrides(mapping: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return `mapping` changed by `key=value` texts, later ones winning; `a.b=c` reaches into nested keys.

    Values stay text: the field's type reads them, so `prompt=yes` is a prompt and `formats=mp4,gif` a list.
    """
    changed = dict(mapping)
    for override in overrides:
        key, equals, value = override.partition("=")
        *outer, last = [name.strip() for name in key.split(".")]
        if not equals or not last or not all(outer):
            raise ConfigError(f"expected key=value, got {override!r}")
        inner = changed
        for name in outer:
            nested = inner.get(name)
            inner[name] = dict(nested) if isinstance(nested, Mapping) else {}
            inner = inner[name]
        inner[last] = value.strip()
    return changed
