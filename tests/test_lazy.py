"""Names that are imported when first used."""

import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

ROOM = '''
"""A room."""

from typing import TYPE_CHECKING

from stillmotion.lazy import lazily

if TYPE_CHECKING:
    from {room}.lamp import lamp as lamp
    from {room}.heavy import Chandelier as Chandelier

NAMES = lazily(__name__)
'''


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A package with a light module whose function has its name, and a heavy one; another package for every test."""
    name = f"room_{abs(hash(request.node.name))}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text(ROOM.format(room=name).lstrip())
    (folder / "lamp.py").write_text("def lamp() -> str:\n    return 'light'\n")
    (folder / "heavy.py").write_text("class Chandelier:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_name_is_imported_when_it_is_asked_for(room: str) -> None:
    package = __import__(room)
    assert package.NAMES == ("Chandelier", "lamp")
    assert f"{room}.lamp" not in sys.modules
    assert package.lamp() == "light"
    assert f"{room}.heavy" not in sys.modules
    assert dir(package).count("Chandelier") == 1
    assert package.Chandelier is sys.modules[f"{room}.heavy"].Chandelier


def test_a_function_stays_the_function_when_the_module_of_its_name_is_imported(room: str) -> None:
    package = __import__(room)
    module = __import__(f"{room}.lamp", fromlist=["lamp"])
    assert isinstance(module, ModuleType)
    assert isinstance(package.lamp, FunctionType)
    assert package.lamp is module.lamp
    assert __import__(f"{room}.heavy", fromlist=["Chandelier"]) is package.heavy


def test_an_unknown_name_is_an_attribute_error(room: str) -> None:
    package = __import__(room)
    with pytest.raises(AttributeError, match=f"module '{room}' has no attribute 'lantern'"):
        _ = package.lantern
    assert not hasattr(package, "_lantern")


def test_a_star_gives_every_name(room: str) -> None:
    found: dict[str, object] = {}
    exec(f"from {room} import *", found)
    assert {"Chandelier", "lamp"} <= set(found)


def test_configs_and_flags_need_nothing_heavy() -> None:
    program = (
        "import sys, stillmotion as sm\n"
        "sm.AnimateConfig(prompt='a ball')\n"
        "from stillmotion.cli import main\n"
        "main(['animate', '--help'])\n"
        "heavy = {'av', 'diffusers', 'numpy', 'peft', 'PIL', 'torch', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
