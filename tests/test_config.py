"""Configs: types, limits, messages, YAML, overrides, sentences."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillmotion.config import AdapterFile, Config, Limits, field_docs, from_dict, settings, to_dict, with_overrides
from stillmotion.errors import ConfigError, FileError


@dataclass(frozen=True, kw_only=True)
class LensConfig(Config):
    """A nested config."""

    zoom: float = 1.0
    """How far it zooms."""
    names: tuple[str, ...] = ()
    """What it is called."""


@dataclass(frozen=True)
class PlainConfig:
    """A dataclass that is no `Config`."""

    rate: float = 1e-3
    """Its rate,
    over two lines."""


@dataclass(frozen=True, kw_only=True)
class SceneConfig(Config):
    """A config with a field of every kind."""

    prompt: Annotated[str, Limits(blank=False)]
    """What is seen."""
    width: Annotated[int | None, Limits(minimum=8, multiple_of=8)] = None
    """Width in pixels."""
    num_frames: Annotated[int, Limits(minimum=1)] = 16
    """How many frames."""
    share: Annotated[float, Limits(minimum=0, maximum=1)] = 0.5
    """A share."""
    loop: bool = False
    """Whether it loops."""
    sampler: Literal["ddim", "euler"] = "ddim"
    """Which sampler."""
    formats: tuple[Literal["mp4", "gif"], ...] = ("mp4",)
    """What is written."""
    seed: Annotated[int | None, Limits(as_text=True)] = None
    """The seed."""
    folder: Path | None = None
    """Where to."""
    motion_loras: tuple[AdapterFile, ...] = ()
    """Adapters."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Two numbers."""
    prompts: dict[int, str] = field(default_factory=dict)
    """Texts by frame."""
    lens: LensConfig = field(default_factory=LensConfig)
    """The lens."""

    def check(self) -> None:
        if self.loop and self.num_frames < 2:
            raise ConfigError(f"loop: expected at least 2 frames, got num_frames {self.num_frames}")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_frames", "abc", "num_frames: expected an integer >= 1, got 'abc'"),
        ("num_frames", 0, "num_frames: expected an integer >= 1, got 0"),
        ("num_frames", True, "num_frames: expected an integer >= 1, got True"),
        ("num_frames", 1.5, "num_frames: expected an integer >= 1, got 1.5"),
        ("width", 12, "width: expected an integer >= 8 that is a multiple of 8 or none, got 12"),
        ("share", 2, "share: expected a number from 0 to 1, got 2"),
        ("share", float("nan"), "share: expected a number from 0 to 1, got nan"),
        ("loop", "maybe", "loop: expected true or false, got 'maybe'"),
        ("sampler", "pndm", "sampler: expected one of ddim, euler, got 'pndm'"),
        ("formats", ["mp4", "avi"], "formats.1: expected one of mp4, gif, got 'avi'"),
        ("prompt", " ", "prompt: expected text that is not empty, got ' '"),
        ("prompt", 7, "prompt: expected text that is not empty, got 7"),
        ("prompt", None, "prompt: expected text that is not empty, got nothing"),
        ("betas", [0.9], "betas: expected a list of 2 (a number, a number), got [0.9]"),
        ("motion_loras", ["zoom.ckpt:nan"], "motion_loras.0: expected a file or file:strength, got 'zoom.ckpt:nan'"),
        ("lens", {"zoom": "far"}, "lens.zoom: expected a number, got 'far'"),
        ("lens", {"zom": 1}, "lens.zom: unknown key; the nearest is 'zoom'"),
        ("prompts", {"x": "a"}, "prompts.x: expected an integer, got 'x'"),
        ("num_frame", 3, "num_frame: unknown key; the nearest is 'num_frames'"),
        ("Zzz", 3, "Zzz: unknown key; the keys are prompt, width,"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SceneConfig.from_dict({"prompt": "a ball", key: value})
    assert str(caught.value).startswith(message)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        SceneConfig.from_dict({"widht": 8, "num_frames": "x"})
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["widht", "num_frames", "prompt"]


def test_python_calls_are_checked_like_files() -> None:
    with pytest.raises(ConfigError, match="num_frames: expected an integer >= 1, got 0"):
        SceneConfig(prompt="a ball", num_frames=0)
    with pytest.raises(ConfigError, match="loop: expected at least 2 frames"):
        SceneConfig(prompt="a ball", num_frames=1).replace(loop=True)


def test_text_is_read_as_the_fields_type() -> None:
    changed = with_overrides(
        {"prompt": "x", "lens": {"zoom": 3}},
        ["prompt=yes", "width=64", "share=1e-1", "loop=on", "formats=mp4, gif", "seed=10788741199826055526",
         "lens.names=[a, b]", "motion_loras=zoom.ckpt:0.5,pan.ckpt", "prompts={0: red, 8: blue}", "width=none"],
    )  # fmt: skip
    config = SceneConfig.from_dict(changed)
    assert config.prompt == "yes" and config.width is None and config.share == 0.1 and config.loop
    assert config.formats == ("mp4", "gif") and config.seed == 10788741199826055526
    assert config.lens == LensConfig(zoom=3.0, names=("a", "b"))
    assert config.motion_loras == (AdapterFile("zoom.ckpt", 0.5), AdapterFile("pan.ckpt"))
    assert config.prompts == {0: "red", 8: "blue"}


@pytest.mark.parametrize("override", ["seed", "=3", "a..b=1", ".=1"])
def test_an_override_without_a_key_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="expected key=value"):
        with_overrides({}, [override])


@given(st.integers(), st.text(min_size=1).filter(str.strip), st.floats(allow_nan=False, allow_infinity=False))
def test_what_is_written_is_read_back_equal(seed: int, prompt: str, strength: float) -> None:
    config = SceneConfig(prompt=prompt, seed=seed, motion_loras=(AdapterFile("a:b:0.5", strength),), folder=Path("x"))
    mapping = to_dict(config)
    assert mapping["seed"] == str(seed)
    assert SceneConfig.from_dict(mapping) == config


def test_yaml_round_trip(tmp_path: Path) -> None:
    config = SceneConfig(prompt="yes: a ball, 1e-3", seed=2**70, prompts={8: "red"}, formats=("gif",))
    path = tmp_path / "scene.yaml"
    path.write_text(config.to_yaml(sentences=True), encoding="utf-8")
    assert "# How many frames.\nnum_frames: 16\n" in path.read_text(encoding="utf-8")
    assert SceneConfig.from_yaml(path) == config
    assert SceneConfig.from_yaml(path, ["num_frames=8"]).num_frames == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt: a\nprompt: b\n", "line 2: the key 'prompt' is given twice"),
        ("prompt: [a\n", "line 2: this is not YAML"),
        ("- a\n- b\n", "expected `key: value` lines, got a list"),
        ("prompt: !!python/object/apply:os.getcwd []\n", "line 1: this is not YAML: could not determine a constructor"),
        ("prompt: a\nstepz: 3\n", "stepz: unknown key"),
    ],
)
def test_a_broken_yaml_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "scene.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        SceneConfig.from_yaml(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)


def test_a_missing_or_binary_yaml_file_is_a_file_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        SceneConfig.from_yaml(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="not text"):
        SceneConfig.from_yaml(tmp_path / "bytes.yaml")


@pytest.mark.parametrize(
    ("text", "path", "strength"),
    [
        ("zoom.ckpt", "zoom.ckpt", 1.0),
        ("zoom.ckpt:0.8", "zoom.ckpt", 0.8),
        ("zoom.ckpt:-1", "zoom.ckpt", -1.0),
        (r"C:\loras\zoom.ckpt", r"C:\loras\zoom.ckpt", 1.0),
        (r"C:\loras\zoom.ckpt:0.5", r"C:\loras\zoom.ckpt", 0.5),
        ("C:1", "C:1", 1.0),
        ("C:/zoom.ckpt:1e-1", "C:/zoom.ckpt", 0.1),
    ],
)
def test_adapter_text(text: str, path: str, strength: float) -> None:
    assert AdapterFile.from_text(text) == AdapterFile(path, strength)
    assert AdapterFile.from_text(str(AdapterFile(path, strength))) == AdapterFile(path, strength)


def test_every_field_is_described() -> None:
    found = {setting.name: setting for setting in settings(SceneConfig)}
    assert found["prompt"].required and not found["width"].required
    assert found["formats"].choices == ("mp4", "gif") and found["sampler"].choices == ("ddim", "euler")
    assert found["num_frames"].expected == "an integer >= 1" and found["num_frames"].default == 16
    assert all(setting.sentence for setting in found.values())
    assert field_docs(PlainConfig) == {"rate": "Its rate, over two lines."}


def test_plain_dataclasses_are_read_too() -> None:
    assert from_dict(PlainConfig, {"rate": "1e-4"}) == PlainConfig(rate=1e-4)


def test_a_section_given_in_part_keeps_the_rest_of_its_own_defaults() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Recipe(Config):
        lens: LensConfig = field(default=LensConfig(zoom=3.0, names=("wide",)))
        """Its lens, not the one that the class alone would make."""

    assert from_dict(Recipe, {"lens": {"zoom": 2}}).lens == LensConfig(zoom=2.0, names=("wide",))
    with pytest.raises(ConfigError, match=r"lens\.zom: unknown key; the nearest is 'zoom'"):
        from_dict(Recipe, {"lens": {"zom": 2}})
