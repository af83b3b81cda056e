"""The rules of the house, held by machine: sizes, who may print, what may happen on import, names, sentences."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "stillmotion"
MODULES = sorted(PACKAGE.rglob("*.py"))
TEXTS = [
    *MODULES,
    *(ROOT / "tests").rglob("*.py"),
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(path for path in (ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / ".ci" / "run") if path.exists()),
]

LONGEST_FUNCTION, LONGEST_FILE, MOST_PARAMETERS = 60, 350, 8
DOORS = ("cli", "studio", "__main__.py")
BANNED_NAMES = {"util", "utils", "helper", "helpers", "common", "misc", "manager", "base"}
# What a module may do when it is imported: say what it is, import, define, name constants.
QUIET = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def classes(tree: ast.AST) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    for function in functions(tree_of(path)):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        assert length <= LONGEST_FUNCTION, f"{function.name} has {length} lines"
        arguments = function.args
        names = [a.arg for a in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]]
        count = len([name for name in names if name not in ("self", "cls")])
        assert count <= MOST_PARAMETERS, f"{function.name} has {count} parameters"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_doors_print_and_read_arguments(path: Path) -> None:
    if path.relative_to(PACKAGE).parts[0] in DOORS:
        return
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Name):
            assert node.id not in ("print", "input"), f"line {node.lineno}: {node.id}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys":
            assert node.attr not in ("argv", "stdout", "stderr", "exit"), f"line {node.lineno}: sys.{node.attr}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_importing_does_nothing(path: Path) -> None:
    for node in tree_of(path).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'"):
            continue
        words = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)  # docstrings, below constants too
        assert words or isinstance(node, QUIET), f"line {node.lineno}: {ast.unparse(node)[:80]}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_names_say_something(path: Path) -> None:
    parts = set(path.relative_to(PACKAGE).with_suffix("").parts)
    assert not parts & BANNED_NAMES
    for found in classes(tree_of(path)):
        words = {word.lower() for word in re.findall(r"[A-Z][a-z]+", found.name)}
        assert not words & BANNED_NAMES, found.name


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_annotations_can_be_run(path: Path) -> None:
    # Postponed annotations are text, which a run-time checker of shapes cannot read.
    imports = [node for node in tree_of(path).body if isinstance(node, ast.ImportFrom)]
    assert "__future__" not in [node.module for node in imports]


def config_fields() -> list[tuple[str, bool]]:
    """Return every field of every class called …Config, and whether a sentence stands below it."""
    found = []
    for path in MODULES:
        for config in classes(tree_of(path)):
            if not config.name.endswith("Config"):
                continue
            for node, below in zip(config.body, [*config.body[1:], None], strict=True):
                if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation):
                    told = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                    found.append((f"{name_of(path)}: {config.name}.{ast.unparse(node.target)}", told))
    return found


def test_every_config_field_has_its_sentence() -> None:
    assert [name for name, told in config_fields() if not told] == []


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    home = re.compile(r"(?<![\w.])/(?:root|home|Users|work)/\w")
    found = [
        name_of(path) for path in TEXTS if path != Path(__file__) and home.search(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_imports_go_down_only() -> None:
    from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == EXIT_STATUS_SUCCESS


def test_the_public_face_is_what_it_says() -> None:
    import stillmotion as sm

    tree = tree_of(PACKAGE / "__init__.py")
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.asname for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == set(sm.__all__) - {"__version__"}
    for name in sm.__all__:
        assert getattr(sm, name) is not None
    assert callable(sm.animate)  # the function, though a room has the same name
