"""A textual inversion with the word that stands for it, as prompts of the command line and YAML write it."""

import os
from dataclasses import dataclass
from typing import ClassVar

from stillmotion.errors import ConfigError


@dataclass(frozen=True)
class EmbeddingFile:
    """A textual inversion's file; in text `file` or `word=file`, an `=` in the path written twice."""

    path: str
    """The file."""
    word: str | None = None
    """What stands for it in prompts; by default the file's name without its ending, and the name stored in it."""

    in_words: ClassVar[str] = "a file or word=file"

    def __post_init__(self) -> None:
        path = os.fspath(self.path)
        if not path.strip():
            raise ConfigError(f"expected a file name, got {self.path!r}")
        if self.word is not None and not self.word.strip():
            raise ConfigError(f"{path}: expected a word in front of '=', got {self.word!r}")
        object.__setattr__(self, "path", path)

    @classmethod
    def from_text(cls, text: str) -> "EmbeddingFile":
        """Read `file` or `word=file`."""
        parts = [part.replace("\0", "=") for part in text.strip().replace("==", "\0").split("=", 1)]
        return cls(parts[1], parts[0].strip()) if len(parts) == 2 else cls(parts[0])

    def __str__(self) -> str:
        word = "" if self.word is None else self.word.replace("=", "==") + "="
        return word + self.path.replace("=", "==")
