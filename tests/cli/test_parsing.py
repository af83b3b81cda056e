"""Flags out of a config's fields, and configs out of flags, YAML and --set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from stillmotion.cli.clips import GROUPS, SHORTS
from stillmotion.cli.parsing import Parser, UsageError, add_config_flags, config_from
from stillmotion.config import AdapterFile, Config, Limits, settings
from stillmotion.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LampConfig(Config):
    """A job of the tests."""

    name: Annotated[str, Limits(blank=False)]
    """What it is called."""
    num_bulbs: Annotated[int, Limits(minimum=1)] = 3
    """How many bulbs, 100 % of them lit."""
    warmth: float | None = None
    """How warm, in kelvin."""
    is_on: bool = False
    """Whether it is on."""
    shade: Literal["round", "square"] = "round"
    """Its shape."""
    cables: tuple[AdapterFile, ...] = ()
    """Its cables."""
    colours: tuple[Literal["red", "green", "blue"], ...] = ("red", "green")
    """Its colours."""


def read(*words: str) -> LampConfig:
    parser = made()
    return config_from(LampConfig, parser.parse(words))


def made() -> Parser:
    parser = Parser("lamp", "A lamp.")
    groups = {"light": ["num_bulbs", "warmth"]}
    add_config_flags(parser, LampConfig, groups=groups, shorts={"num_bulbs": "-b"}, positional=["name"])
    return parser


def test_each_field_is_a_flag_with_its_sentence() -> None:
    shown = made().format_help().partition("positional arguments:")[2]
    for setting in settings(LampConfig):
        assert setting.name == "name" or f"--{setting.name.replace('_', '-')}" in shown
        assert setting.sentence.split()[0] in shown
    assert shown.index("light:") < shown.index("--num-bulbs") < shown.index("more:") < shown.index("--shade")
    assert "100 % of them lit. [3]" in shown
    assert "{round,square}" in shown and "FILE[:STRENGTH]" in shown


def test_flags_are_read_as_the_fields_types() -> None:
    words = ["desk", "-b", "5", "--warmth", "2700", "--is-on", "--shade", "square"]
    assert read(*words) == LampConfig(name="desk", num_bulbs=5, warmth=2700.0, is_on=True, shade="square")
    assert read("desk") == LampConfig(name="desk")
    assert read("desk", "--no-is-on").is_on is False


def test_lists_are_given_by_repeating_or_by_commas() -> None:
    assert read("desk", "--cables", "a.ckpt:0.5", "--cables", "b.ckpt").cables == (
        AdapterFile("a.ckpt", 0.5),
        AdapterFile("b.ckpt"),
    )
    assert read("desk", "--colours", "blue,red").colours == ("blue", "red")
    assert read("desk", "--colours", "blue", "--colours", "red").colours == ("blue", "red")


def test_negative_numbers_are_values() -> None:
    assert read("desk", "--warmth", "-5").warmth == -5.0


def test_file_then_set_then_flags(tmp_path: Path) -> None:
    file = tmp_path / "lamp.yaml"
    file.write_text("name: desk\nnum_bulbs: 1\nwarmth: 1\nshade: square\n", encoding="utf-8")
    lamp = read("-c", str(file), "--set", "num_bulbs=2", "--set", "warmth=2", "--num-bulbs", "7")
    assert lamp == LampConfig(name="desk", num_bulbs=7, warmth=2.0, shade="square")


def test_what_is_wrong_is_said_once_for_all_with_the_files_name(tmp_path: Path) -> None:
    file = tmp_path / "lamp.yaml"
    file.write_text("name: desk\nnum_bulb: 1\nwarmth: hot\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read("-c", str(file), "-b", "0")
    said = str(caught.value)
    assert said.startswith(f"{file}: ")
    assert "num_bulb: unknown key; the nearest is 'num_bulbs'" in said
    assert "warmth: expected a number or none, got 'hot'" in said
    assert "num_bulbs: expected an integer >= 1, got '0'" in said


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ConfigError, match="name: missing; expected text that is not empty"):
        read()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["desk", "--num-bulb", "3"], "Unknown flag --num-bulb; the nearest flag is --num-bulbs."),
        (["desk", "--num_bulbs=3"], "Unknown flag --num_bulbs; the nearest flag is --num-bulbs."),
        (["desk", "--zzz"], "Unknown flag --zzz."),
        (["desk", "lamp"], "Unexpected 'lamp'; a text of several words stands in quotes."),
        (["desk", "--warmth"], "Argument --warmth: expected one argument."),
    ],
)
def test_mistakes_of_usage(words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(*words)
    assert str(caught.value) == f"{said}\nSee: lamp --help"


def test_animate_groups_name_every_field_once() -> None:
    from stillmotion import AnimateConfig

    fields = [setting.name for setting in settings(AnimateConfig)]
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted([*grouped, "prompt"]) == sorted(fields)
    assert set(SHORTS) <= set(fields)
    assert len(set(SHORTS.values())) == len(SHORTS)
