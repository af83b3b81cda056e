"""`inspect` and `convert`: model files on disk."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import stillmotion as sm
from stillmotion.cli.parsing import Parser
from stillmotion.cli.screen import Screen
from stillmotion.cli.verb import Verb
from stillmotion.errors import FileError

DIALECTS = ("diffusers", "original", "comfyui", "stillmotion")
SHOWN_IN_TABLE = ("kind", "variant", "dialect", "num_frames", "rank", "dtype", "num_parameters", "size", "sha256")


def _inspect_arguments(parser: Parser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", type=Path, help="A model file, or a folder that holds one.")
    parser.add_argument("--json", action="store_true", help="Print a JSON list, everything exact, for programs.")


def _inspect(arguments: argparse.Namespace, screen: Screen) -> int:
    found: list[dict[str, Any]] = []
    failed = False
    for file in arguments.files:
        try:
            found.append(dataclasses.asdict(sm.inspect(file)))
        except FileError as error:  # the other files are still worth a look
            failed = True
            screen.error(str(error))
    if arguments.json:
        screen.result(json.dumps(found, indent=2, default=str))
    elif len(arguments.files) == 1:
        screen.facts([(key, text) for info in found for key, value in info.items() if (text := shown(key, value))])
    elif found:
        rows = [[str(info["path"]), *(shown(key, info[key]) for key in SHOWN_IN_TABLE)] for info in found]
        screen.table(["file", *SHOWN_IN_TABLE], [[*row[:-1], row[-1][:12]] for row in rows])
    return 2 if failed else 0


def shown(key: str, value: Any) -> str:
    """Return a value of a `FileInfo` as people read it; empty where there is nothing to say."""
    if value is None or value in ((), [], {}, ""):
        return ""
    if key == "size":
        return _in_units(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return json.dumps(value, default=str) if isinstance(value, dict | list | tuple) else str(value)
    return f"{value:,}"


def _in_units(num_bytes: int) -> str:
    for factor, unit in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB")):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes} bytes"


def _convert_arguments(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", help="A motion module, MotionLoRA or domain adapter, in any dialect.")
    parser.add_argument("--to", required=True, choices=DIALECTS, help="Whose names and layout the new file has.")
    parser.add_argument("-o", "--output", metavar="PATH", help="Where to; by default beside FILE, named after it.")
    parser.add_argument(
        "--variant", metavar="NAME", help="Which variant a motion module is, where its file does not say."
    )
    parser.add_argument("--overwrite", action="store_true", help="Replace what is there.")


def _convert(arguments: argparse.Namespace, screen: Screen) -> int:
    made = sm.convert(
        arguments.file, arguments.to, arguments.output, variant=arguments.variant, overwrite=arguments.overwrite
    )
    screen.result(str(made))
    return 0


VERBS = {
    "inspect": Verb(
        description="Say what model files are: kind, variant, dialect, widths, frames, rank, dtype, sha256. Nothing in "
        "a file is run, and no model is built.",
        add_arguments=_inspect_arguments,
        run=_inspect,
    ),
    "convert": Verb(
        description="Write a motion module, MotionLoRA or domain adapter in another program's dialect. The numbers stay "
        "exactly what they are; converting back gives the file again.",
        add_arguments=_convert_arguments,
        run=_convert,
    ),
}
