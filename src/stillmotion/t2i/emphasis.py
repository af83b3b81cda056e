r"""How strongly each piece of a prompt is meant, as AUTOMATIC1111's web UI writes it and most prompts on the web do.

    (word)       1.1 times          (word:1.3)   1.3 times          [word]   1 / 1.1 times
    ((word))     1.1 · 1.1 times    \( \) \[ \]  the bracket itself

Groups nest, and their factors multiply. One that is never closed reaches to the end of the prompt; a bracket that closes
nothing is a bracket.
"""

import re
from dataclasses import dataclass, field

STEP = 1.1
"""What a pair of brackets multiplies or divides by."""

Piece = tuple[str, float]
"""A piece of a prompt and its weight; 1 is as written."""

_TOKEN = re.compile(
    r"\\[()\[\]\\]"  # a bracket that is meant as one
    r"|:\s*(?P<factor>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)"  # the end of (word:1.3)
    r"|[()\[\]]"
    r"|[^()\[\]\\:]+"
    r"|.",
    re.DOTALL,
)
_FACTORS = {"(": STEP, "[": 1 / STEP}
_CLOSES = {")": "(", "]": "["}


@dataclass
class _Group:
    """The pieces of a prompt since an opening bracket."""

    opening: str
    pieces: list[Piece] = field(default_factory=list)


def weighted(prompt: str) -> list[Piece]:
    """Return the pieces of a prompt in order, each with its weight, neighbours of one weight joined."""
    groups = [_Group("")]
    for token in _TOKEN.finditer(prompt):
        text, factor = token[0], token["factor"]
        within = groups[-1].opening
        if text in _FACTORS:
            groups.append(_Group(text))
        elif factor is not None and within == "(":
            _close(groups, float(factor))
        elif text in _CLOSES and within == _CLOSES[text]:
            _close(groups, _FACTORS[within])
        else:
            is_escaped = len(text) == 2 and text[0] == "\\"
            groups[-1].pieces.append((text[1] if is_escaped else text, 1.0))
    while len(groups) > 1:
        _close(groups, _FACTORS[groups[-1].opening])
    return _joined(groups[0].pieces)


def _close(groups: list[_Group], factor: float) -> None:
    """Hand the pieces of the innermost group, multiplied, to the group around it."""
    group = groups.pop()
    groups[-1].pieces += [(text, weight * factor) for text, weight in group.pieces]


def _joined(pieces: list[Piece]) -> list[Piece]:
    joined: list[Piece] = []
    for text, raw in pieces:
        weight = round(raw, 6)  # so that [(word)] is as written
        if joined and joined[-1][1] == weight:
            joined[-1] = (joined[-1][0] + text, weight)
        else:
            joined.append((text, weight))
    return joined
