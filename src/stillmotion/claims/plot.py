"""A claim's figures as a plot: each one's mean with its interval, and what is wanted of it. Same figures, same SVG."""

import math
from collections.abc import Sequence
from html import escape

from stillmotion.claims.finding import Figure, Finding

WIDTH, LABELS, VALUES = 860, 410, 130
ROW, TOP, BOTTOM = 22, 34, 26
_LEFT, _RIGHT = LABELS + 12, WIDTH - VALUES
_STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 13px }
.axis { stroke: #d0d7de }
.wanted { stroke: #57606a; stroke-dasharray: 3 3 }
.free { stroke: #8c959f; fill: #8c959f }
.yes { stroke: #0969da; fill: #0969da }
.no { stroke: #bc4c00; fill: #bc4c00 }
@media (prefers-color-scheme: dark) { text { fill: #c9d1d9 } .axis { stroke: #30363d } }
</style>"""


def plot(name: str, finding: Finding) -> str:
    """Return the plot of claim `name`: a row for each figure; figures of one scale share it."""
    ranges = _ranges(finding.figures)
    height = TOP + ROW * len(finding.figures) + BOTTOM
    said = f"{name} {'holds' if finding.holds else 'does not hold'}"
    rows = [_row(figure, ranges[_scale(figure)], index) for index, figure in enumerate(finding.figures)]
    legend = "mean, 95 % interval; dashed: what is wanted; blue reaches it, orange does not"
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(said)}">',
            _STYLE,
            f'<text class="title" x="8" y="18">{escape(said)}</text>',
            *rows,
            f'<text x="8" y="{height - 8}">{legend}</text>',
            "</svg>",
            "",
        ]
    )


def _scale(figure: Figure) -> str:
    return figure.scale or ("share" if figure.as_share else f"own: {figure.name}")


def _ranges(figures: Sequence[Figure]) -> dict[str, tuple[float, float]]:
    """Return what each scale reaches from and to: all that is drawn on it, and a little room."""
    found: dict[str, list[float]] = {}
    for figure in figures:
        numbers = [figure.mean, *(figure.interval or ()), *(limit for _, limit in figure.limits)]
        numbers += [0.0, 1.0] if _scale(figure) == "share" else []
        found.setdefault(_scale(figure), []).extend(number for number in numbers if not math.isnan(number))
    ranges = {}
    for scale, numbers in found.items():
        low, high = min(numbers, default=0.0), max(numbers, default=1.0)
        room = 0.04 * (high - low) or max(0.04 * abs(high), 1e-3)
        ranges[scale] = (low - room, high + room)
    return ranges


def _row(figure: Figure, reach: tuple[float, float], index: int) -> str:
    y = TOP + ROW * index + ROW / 2
    low, high = reach

    def x(value: float) -> str:
        return f"{_LEFT + (value - low) / (high - low) * (_RIGHT - _LEFT):.1f}"

    kind = "free" if not figure.limits else "yes" if figure.holds else "no"
    parts = [
        f'<text x="{LABELS}" y="{y + 4:g}" text-anchor="end">{escape(figure.name)}</text>',
        f'<line class="axis" x1="{_LEFT}" y1="{y:g}" x2="{_RIGHT}" y2="{y:g}"/>',
    ]
    for _, limit in figure.limits:
        at = x(limit)
        parts.append(f'<line class="wanted" x1="{at}" y1="{y - 10:g}" x2="{at}" y2="{y + 10:g}"/>')
    if figure.interval:
        ends = [x(end) for end in figure.interval]
        parts.append(f'<line class="{kind}" x1="{ends[0]}" y1="{y:g}" x2="{ends[1]}" y2="{y:g}" stroke-width="4"/>')
    if not math.isnan(figure.mean):
        parts.append(f'<circle class="{kind}" cx="{x(figure.mean)}" cy="{y:g}" r="5"/>')
    verdict = {"free": "", "yes": " · yes", "no": " · no"}[kind]
    parts.append(f'<text x="{_RIGHT + 12}" y="{y + 4:g}">{figure.told(figure.mean)}{verdict}</text>')
    return "\n".join(parts)
