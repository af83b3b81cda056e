"""Pages out of the files of `templates`; every value is escaped unless it is our own markup."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).parent / "templates"


def page(name: str, **values: Any) -> str:
    """Return the page of a template."""
    return _environment().get_template(name).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["style"] = lambda: (FOLDER / "style.css").read_text(encoding="utf-8")
    return environment
