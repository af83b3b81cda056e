"""A file of small weights together with its strength, as prompts of the command line and YAML write it."""

import math
import os
from dataclasses import dataclass
from typing import ClassVar

from stillmotion.errors import ConfigError


@dataclass(frozen=True)
class AdapterFile:
    """A MotionLoRA, domain adapter or LoRA file with its strength; in text `file` or `file:strength`."""

    path: str
    """The file."""
    strength: float = 1.0
    """How strongly it acts: 1 as trained, 0 not at all, below 0 the other way."""

    in_words: ClassVar[str] = "a file or file:strength"

    def __post_init__(self) -> None:
        path = os.fspath(self.path)
        if not path.strip():
            raise ConfigError(f"expected a file name, got {self.path!r}")
        if isinstance(self.strength, bool) or not isinstance(self.strength, int | float):
            raise ConfigError(f"{path}: expected its strength as a number, got {self.strength!r}")
        if not math.isfinite(self.strength):
            raise ConfigError(f"{path}: expected a finite strength, got {self.strength!r}")
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "strength", float(self.strength))

    @classmethod
    def from_text(cls, text: str) -> "AdapterFile":
        r"""Read `file` or `file:strength`; a drive letter (`C:\zoom.ckpt`, `C:1`) belongs to the file."""
        head, _, tail = text.strip().rpartition(":")
        try:
            return cls(head, float(tail)) if len(head) > 1 else cls(text.strip())
        except ValueError as error:
            if isinstance(error, ConfigError):
                raise
            return cls(text.strip())

    def __str__(self) -> str:
        # Always with the strength, so that a file whose own name ends in ":0.5" is read back as it was.
        return f"{self.path}:{self.strength!r}"
