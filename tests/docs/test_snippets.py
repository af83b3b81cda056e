"""Every snippet of the README and the docs: Python is run, YAML is read, commands are parsed, links lead somewhere.

Python runs in a folder where the files that the pages name lie, tiny and with random weights.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from stillmotion.cli.door import VERBS, find
from stillmotion.cli.parsing import Parser, config_from

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])


class Snippet(NamedTuple):
    """A block of code on a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def snippets(page: Path) -> Iterator[Snippet]:
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        yield Snippet(page, text[: found.start()].count("\n") + 1, found[1], found[2])


SNIPPETS = [snippet for page in PAGES for snippet in snippets(page)]


def of(*languages: str) -> list[Snippet]:
    return [snippet for snippet in SNIPPETS if snippet.language in languages]


def commands(snippet: Snippet) -> list[list[str]]:
    """Return the commands of a shell snippet in words, lines that end in a backslash joined."""
    lines = snippet.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def test_every_snippet_says_what_it_is() -> None:
    known = ("python", "sh", "yaml", "text")
    assert [str(snippet) for snippet in SNIPPETS if snippet.language not in known] == []
    assert of("python") and of("sh") and of("yaml")


@pytest.mark.parametrize("snippet", of("sh"), ids=str)
def test_commands_are_what_the_command_line_takes(
    snippet: Snippet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillmotion import AnimateConfig, PersonalizeConfig, TrainConfig

    monkeypatch.chdir(tmp_path)
    for written in of("yaml"):
        if named := re.match(r"# (\S+\.yaml)\n", written.text):
            Path(named[1]).write_text(written.text, encoding="utf-8")
    for program, *words in commands(snippet):
        if program == "make":
            targets = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert all(re.search(rf"^{word}:", targets, flags=re.MULTILINE) for word in words if "=" not in word)
        elif program == "stillmotion":
            name = next(known for known in VERBS if words[: len(known.split())] == known.split())
            parser = Parser(f"stillmotion {name}", "")
            find(name).add_arguments(parser)
            arguments = parser.parse(words[len(name.split()) :])
            if name == "animate":
                config_from(AnimateConfig, arguments)
            if name == "personalize":
                arguments.method = arguments.method.replace("-", "_")
                config_from(PersonalizeConfig, arguments)
            if name == "train":
                arguments.stage = arguments.stage.replace("-", "_")
                config_from(TrainConfig, arguments)
        else:
            assert program in ("pip", ".venv/bin/python", "torchrun"), f"{program} is not checked here"


@pytest.mark.parametrize("snippet", of("yaml"), ids=str)
def test_yaml_is_a_config(snippet: Snippet, tmp_path: Path) -> None:
    from stillmotion import AnimateConfig, PersonalizeConfig, TrainConfig

    path = tmp_path / "page.yaml"
    path.write_text(snippet.text, encoding="utf-8")
    kinds = {"stage:": TrainConfig, "method:": PersonalizeConfig}
    next((kind for key, kind in kinds.items() if key in snippet.text), AnimateConfig).from_yaml(path)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(s.language == "python" for s in snippets(page))], ids=str
)
def test_python_runs(page: Path, files_of_the_docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snippets of a page run one after the other, as a reader would paste them."""
    monkeypatch.chdir(files_of_the_docs)
    names: dict[str, object] = {"__name__": "snippet"}
    for snippet in snippets(page):
        if snippet.language == "python":
            exec(compile("\n" * snippet.line + snippet.text, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [target.partition("#")[0] for target in targets if "://" not in target and not target.startswith("#")]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    decisions = (ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name
    for page in (ROOT / "docs" / "decisions").glob("0*.md"):
        assert f"({page.name})" in decisions, page.name
