"""Stillmotion makes any Stable Diffusion checkpoint move, and trains what makes it move.

    import stillmotion as sm

    clip = sm.animate(sm.AnimateConfig(prompt="a red ball rolling right on green grass"))
    clip.save("ball.mp4")

The names below are the public face. Each is imported when it is first used, since PyTorch takes seconds to load and
`stillmotion --help` does not need it.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillmotion.animate import AnimateConfig as AnimateConfig
    from stillmotion.animate import Clip as Clip
    from stillmotion.animate import animate as animate
    from stillmotion.animate import animation as animation
    from stillmotion.checkpoints import FileInfo as FileInfo
    from stillmotion.checkpoints import convert as convert
    from stillmotion.checkpoints import inspect as inspect
    from stillmotion.checkpoints import load as load
    from stillmotion.checkpoints import save as save
    from stillmotion.errors import Cancelled as Cancelled
    from stillmotion.errors import ConfigError as ConfigError
    from stillmotion.errors import FileError as FileError
    from stillmotion.errors import MismatchError as MismatchError
    from stillmotion.errors import StillmotionError as StillmotionError
    from stillmotion.motion import DomainAdapter as DomainAdapter
    from stillmotion.motion import MotionLora as MotionLora
    from stillmotion.motion import MotionModule as MotionModule
    from stillmotion.motion import Plugged as Plugged
    from stillmotion.motion import plug as plug
    from stillmotion.t2i import T2I as T2I
    from stillmotion.t2i import load_t2i as load_t2i

__version__ = "0.1.0"

_ROOMS = {
    "animate": ("AnimateConfig", "Clip", "animate", "animation"),
    "checkpoints": ("FileInfo", "convert", "inspect", "load", "save"),
    "errors": ("Cancelled", "ConfigError", "FileError", "MismatchError", "StillmotionError"),
    "motion": ("DomainAdapter", "MotionLora", "MotionModule", "Plugged", "plug"),
    "t2i": ("T2I", "load_t2i"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = ["__version__", *sorted(_ROOM_OF)]  # noqa: PLE0604  # names, sorted from the table above


def __getattr__(name: str) -> Any:
    """Import a public name on its first use."""
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'stillmotion' has no attribute {name!r}")
    value = getattr(import_module(f"stillmotion.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Face(ModuleType):
    """This package: the function `sm.animate` stays the function when the room of the same name is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in _ROOM_OF:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
