"""Arguments read kindly: a mistake is one line that names the nearest right word; flags come from a config's fields."""

import argparse
import difflib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from stillmotion.config import Config, Setting, read_yaml, settings, with_overrides
from stillmotion.errors import ConfigError

C = TypeVar("C", bound=Config)


class UsageError(ConfigError):
    """The command line itself is wrong; the message ends with the command whose help says more."""


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises `UsageError` instead of printing and leaving, and suggests the nearest flag."""

    def __init__(self, prog: str, description: str, **options: Any) -> None:
        super().__init__(prog, description=description, formatter_class=HelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError` with argparse's own message."""
        raise UsageError(f"{message[:1].upper()}{message[1:]}.\nSee: {self.prog} --help")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Return the arguments by name; raise `UsageError` for what the parser has no place for."""
        found, left = self.parse_known_args(arguments)
        for word in left:
            if word.startswith("-") and word != "-":
                flag = word.partition("=")[0]
                self.error(f"unknown flag {flag}{nearest(flag, list(self._option_string_actions), 'flag')}")
        if left:
            self.error(f"unexpected {left[0]!r}; a text of several words stands in quotes")
        return found


class HelpFormatter(argparse.HelpFormatter):
    """Help as wide as the terminal up to 110 columns; paragraphs of the description stay apart."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34)
        self._width = min(self._width, 110)

    def _fill_text(self, text: str, width: int, indent: str) -> str:  # noqa: ARG002  # argparse's own signature
        return "\n\n".join(textwrap.fill(part, width) for part in text.split("\n\n"))


def nearest(word: str, known: Sequence[str], what: str) -> str:
    """Return "; the nearest <what> is …" for a mistyped word, empty if nothing known is near."""
    # The dashes would make any two flags look alike.
    bare = {name.lstrip("-"): name for name in known}
    found = difflib.get_close_matches(word.lstrip("-").replace("_", "-"), list(bare), n=1, cutoff=0.5)
    return f"; the nearest {what} is {bare[found[0]]}" if found else ""


def add_config_flags(
    parser: Parser,
    config: type[Config],
    *,
    groups: Mapping[str, Sequence[str]],
    shorts: Mapping[str, str],
    positional: Sequence[str] = (),
) -> None:
    """Give `parser` a flag for each field of `config`, its sentence as help, under the titles of `groups`.

    `shorts` maps a field to its short flag. A field that no group names comes under "more". Fields in `positional` are
    given without a flag, and may be left out where a YAML file has them.
    """
    fields = {setting.name: setting for setting in settings(config)}
    grouped = {name for names in groups.values() for name in names}
    titles = {**groups, "more": [name for name in fields if name not in grouped and name not in positional]}
    for name in positional:
        several = isinstance(fields[name].default, tuple | list)
        parser.add_argument(name, nargs="*" if several else "?", default=argparse.SUPPRESS, help=_help(fields[name]))
    for title, names in titles.items():
        if names:
            group = parser.add_argument_group(title)
            for name in names:
                _add_flag(group, fields[name], shorts.get(name))
    group = parser.add_argument_group("config file")
    group.add_argument(
        "-c", "--config", metavar="FILE.yaml", help="Read the fields from a YAML file; flags go before it."
    )
    group.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="Change one field by its name, as in YAML."
    )


def config_from(config: type[C], arguments: argparse.Namespace) -> C:
    """Return the config of a YAML file, `--set` and the flags given, each going before the one named earlier."""
    return config_of(config, read_yaml(arguments.config) if arguments.config else {}, arguments)


def config_of(config: type[C], fields: Mapping[str, Any], arguments: argparse.Namespace, where: str = "") -> C:
    """Return the config of `fields` that stand in the file of `--config` at `where`, changed by `--set` and the flags."""
    given = vars(arguments)
    mapping = with_overrides(fields, arguments.set)
    names = {setting.name for setting in settings(config)}
    flags = {name: _single(value) for name, value in given.items() if name in names}
    try:
        return config.from_dict({**mapping, **flags})
    except ConfigError as error:
        if arguments.config:
            place = f"{arguments.config}: {where}: " if where else f"{arguments.config}: "
            raise ConfigError(f"{place}{error}") from error
        raise


def _single(value: Any) -> Any:
    """Return the one text of a flag given once, which may itself be a list as YAML has it; several stay a list."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _add_flag(group: Any, setting: Setting, short: str | None) -> None:
    flags = [*([short] if short else []), f"--{setting.name.replace('_', '-')}"]
    options: dict[str, Any] = {"dest": setting.name, "default": argparse.SUPPRESS, "help": _help(setting)}
    if setting.kind is bool:
        options["action"] = argparse.BooleanOptionalAction
    else:
        options["metavar"] = _metavar(setting)
        if isinstance(setting.default, tuple | list):
            options["action"] = "append"
    group.add_argument(*flags, **options)


def _metavar(setting: Setting) -> str:
    if setting.choices and len(setting.choices) <= 4:
        return "{" + ",".join(setting.choices) + "}"
    words = {"an integer": "N", "a number": "X", "a path": "PATH", "a file or file:strength": "FILE[:STRENGTH]"}
    words["a file or word=file"] = "[WORD=]FILE"
    words["a control as"] = "MODEL[=SOURCE]"
    expected = setting.expected.removeprefix("a list, each item ")
    return next((short for start, short in words.items() if expected.startswith(start)), "TEXT")


def _help(setting: Setting) -> str:
    """Return the field's sentence, its words where they are many, and its default; `%` doubled for argparse."""
    parts = [setting.sentence]
    if len(setting.choices) > 4:
        parts.append(f"One of {', '.join(setting.choices)}.")
    if setting.default not in (None, (), [], {}, "") and setting.kind is not bool:
        parts.append(f"[{_shown(setting.default)}]")
    if isinstance(setting.default, tuple | list) and not setting.default:
        parts.append("May be given several times.")
    return " ".join(parts).replace("%", "%%")


def _shown(default: Any) -> str:
    return ",".join(str(item) for item in default) if isinstance(default, tuple | list) else str(default)
