"""What a verb of the command line is."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from stillmotion.cli.parsing import Parser
from stillmotion.cli.screen import Screen


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One verb: its words of help, its arguments, and what it does."""

    description: str
    """What stands at the top of its help; paragraphs are parted by an empty line."""
    add_arguments: Callable[[Parser], None]
    """Tell the parser the verb's arguments."""
    run: Callable[[argparse.Namespace, Screen], int]
    """Do it and return the exit code; a `StillmotionError` is shown by the door."""
