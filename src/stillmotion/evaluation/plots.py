"""Small plots as SVG inside a page: numbers of clips on a line with their mean and interval, courses over the frames."""

from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 280, 44
_PAD = 8


def strip_plot(
    values: Sequence[tuple[str, float]], mean: float, interval: tuple[float, float] | None, decimals: int
) -> Markup:
    """Return a dot per clip (name, value) on a line, the mean as a stroke and its interval as a band; ends are labelled."""
    numbers = [value for _, value in values] + [mean, *(interval or ())]
    low, high = min(numbers), max(numbers)
    reach = high - low

    def x(value: float) -> str:
        share = (value - low) / reach if reach > 1e-12 else 0.5
        return f"{_PAD + share * (WIDTH - 2 * _PAD):.1f}"

    parts = [f'<line class="axis" x1="{_PAD}" y1="16" x2="{WIDTH - _PAD}" y2="16"/>']
    if interval:
        wide = max(float(x(interval[1])) - float(x(interval[0])), 1.0)
        parts.append(f'<rect class="band" x="{x(interval[0])}" y="6" width="{wide:.1f}" height="20" rx="3"/>')
    for name, value in values:
        told = f"<title>{escape(name)}: {value:.{decimals}f}</title>"
        parts.append(f'<circle class="dot" cx="{x(value)}" cy="16" r="4">{told}</circle>')
    parts.append(f'<line class="mean" x1="{x(mean)}" y1="4" x2="{x(mean)}" y2="28"/>')
    ends = [("start", _PAD, low), ("end", WIDTH - _PAD, high)] if reach > 1e-12 else [("middle", WIDTH // 2, low)]
    parts += [f'<text x="{at}" y="41" text-anchor="{anchor}">{value:.{decimals}f}</text>' for anchor, at, value in ends]
    said = f"{len(values)} clips from {low:.{decimals}f} to {high:.{decimals}f}, mean {mean:.{decimals}f}"
    return _svg(parts, said)


def course_plot(values: Sequence[float], decimals: int) -> Markup:
    """Return a line over the frames, its lowest and highest value written beside it."""
    low, high = min(values), max(values)
    reach = high - low
    right = WIDTH - 64  # the labels stand behind it
    step = (right - _PAD) / max(len(values) - 1, 1)

    def y(value: float) -> float:
        return 38 - 32 * ((value - low) / reach if reach > 1e-12 else 0.5)

    points = " ".join(f"{_PAD + index * step:.1f},{y(value):.1f}" for index, value in enumerate(values))
    dot = f'<circle class="dot" cx="{_PAD + (len(values) - 1) * step:.1f}" cy="{y(values[-1]):.1f}" r="2.5"/>'
    parts = [f'<polyline class="course" points="{points}"/>', dot]
    labels = [(12, high), (40, low)] if reach > 1e-12 else [(26, low)]
    parts += [f'<text x="{WIDTH - 56}" y="{at}">{value:.{decimals}f}</text>' for at, value in labels]
    return _svg(parts, f"over {len(values)} steps from {low:.{decimals}f} to {high:.{decimals}f}")


def _svg(parts: Sequence[str], said: str) -> Markup:
    """Return the picture, with a sentence for those who do not see it; every text in `parts` is escaped already."""
    head = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{escape(said)}">'
    )
    return Markup(head + "".join(parts) + "</svg>")  # noqa: S704
