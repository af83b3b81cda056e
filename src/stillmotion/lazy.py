"""Packages whose public names are imported when they are first used.

PyTorch, diffusers and peft take seconds to import. A command's help, a misspelt flag or a wrong key in a YAML file need
none of them, so a package says what it offers once, where type checkers read it, and imports it on demand:

    from typing import TYPE_CHECKING

    from stillmotion.lazy import lazily

    if TYPE_CHECKING:
        from stillmotion.motion.plug import plug as plug

    NAMES = lazily(__name__)
"""

import ast
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class LazyPackage(ModuleType):
    """A package that imports a public name from its home when it is first asked for it."""

    def __getattr__(self, name: str) -> Any:
        home = self.__dict__.get("_homes", {}).get(name)
        if home is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(import_module(home), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing the module `motion/plug.py` makes it an attribute of its package; `motion.plug` stays the function.
        if not (isinstance(value, ModuleType) and name in self.__dict__.get("_homes", {})):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.__dict__.get("_homes", {})})


def lazily(package: str) -> tuple[str, ...]:
    """Make the package that is just being imported lazy, and return its public names.

    They are those that its `if TYPE_CHECKING:` block imports.
    """
    module = sys.modules[package]
    homes = _homes(package)
    module.__dict__["_homes"] = homes
    module.__dict__["__all__"] = sorted(homes)
    module.__class__ = LazyPackage
    return tuple(sorted(homes))


def _homes(package: str) -> dict[str, str]:
    """Return the module that each public name is imported from, as the package's own source says."""
    loader: Any = getattr(sys.modules[package].__spec__, "loader", None)
    blocks = [node for node in ast.parse(loader.get_source(package)).body if isinstance(node, ast.If)]
    found: dict[str, str] = {}
    for block in blocks:
        for statement in block.body if ast.unparse(block.test) == "TYPE_CHECKING" else []:
            if isinstance(statement, ast.ImportFrom) and statement.module:
                found |= {alias.name: statement.module for alias in statement.names}
    return found
