"""What can be said about a study. The command line and YAML read their fields here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from stillmotion.config import Config, Limits
from stillmotion.errors import ConfigError

Question = Literal["text", "domain", "smoothness"]

QUESTIONS: Mapping[str, str] = MappingProxyType(
    {
        "text": "Which clip shows best what the text says?",
        "domain": "Which clip looks most like the reference pictures?",
        "smoothness": "Which clip moves most smoothly?",
    }
)
"""The paper's three questions by name: text alignment, domain similarity, motion smoothness."""

MOST_METHODS = 6


@dataclass(frozen=True, kw_only=True)
class StudyConfig(Config):
    """One study: whose clips are compared, what is asked, where the answers go."""

    methods: tuple[str, ...] = ()
    """The folders of clips, one for each method; a clip has the same file name in each."""

    answers: Path = Path("answers.jsonl")
    """Where the answers are kept, a line each; a study that is there already is gone on with."""

    references: Path | None = None
    """A folder of pictures by the image model; pictures in a folder called like a clip are for that clip alone."""

    questions: tuple[Question, ...] = ()
    """What is asked; by default all three, without the domain where there are no references."""

    prompt: str | None = None
    """What all clips should show, in words; by default what their run.json, metadata or a .txt beside them says."""

    prompts: Path | None = None
    """A CSV with the columns file and prompt, for clips that do not say theirs."""

    seed: Annotated[int, Limits(as_text=True)] = 0
    """Where the order of clips and methods comes from, which is another for each rater."""

    port: Annotated[int, Limits(minimum=0, maximum=65535)] = 8765
    """The port of the page on this machine; 0 takes a free one."""

    def check(self) -> None:
        """Refuse what cannot be compared or asked."""
        if not 2 <= len(self.methods) <= MOST_METHODS:
            raise ConfigError(
                f"methods: expected 2 to {MOST_METHODS} folders of clips to compare, got {len(self.methods)}"
            )
        if "domain" in self.questions and self.references is None:
            raise ConfigError(
                "questions: domain is asked against reference pictures; give a folder of them as references"
            )

    def asked(self) -> tuple[Question, ...]:
        """Return the questions that are asked, in the paper's order."""
        all_three: tuple[Question, ...] = ("text", "domain", "smoothness")
        given = self.questions or all_three
        return tuple(name for name in all_three if name in given and (name != "domain" or self.references is not None))
