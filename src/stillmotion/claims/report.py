"""The report of the claims, as Markdown: `docs/claims.md` is one."""

import os
import platform
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from stillmotion.claims.all_claims import CLAIMS
from stillmotion.claims.finding import Figure, Finding
from stillmotion.claims.plot import plot

_HEAD = """# The paper's claims, measured

Written by `stillmotion claims --write docs/claims.md`. Every clip is made by the embedded toyworld, where what is true is
known. A share is told with the 95 % bootstrap interval of its mean over the clips; a claim holds when every figure is what
is wanted of it. Where an interval is asked to lie above or below a number, chance alone would seldom bring that about.
"""


def write_report(found: Mapping[str, tuple[Finding, float]], file: Path) -> None:
    """Write the report to `file`, and each claim's plot into a folder beside it that is named as the file is."""
    plots = file.with_suffix("")
    plots.mkdir(exist_ok=True)
    for name, (finding, _) in found.items():
        (plots / f"{name}.svg").write_text(plot(name, finding), encoding="utf-8")
    file.write_text(report(found, plots=plots.name), encoding="utf-8")


def report(found: Mapping[str, tuple[Finding, float]], *, plots: str = "") -> str:
    """Return the report of findings by claim, each with the seconds that it took; `plots` is the folder of its plots."""
    lines = [_HEAD, "| claim | holds | minutes |", "| --- | --- | --- |"]
    for name, claim in CLAIMS.items():
        said, minutes_taken = "not measured", ""
        if name in found:
            finding, seconds = found[name]
            said, minutes_taken = "yes" if finding.holds else "no", f"{seconds / 60:.1f}"
        lines.append(f"| {name} {claim.sentence} | {said} | {minutes_taken} |")
    if missing := [name for name, claim in CLAIMS.items() if name not in found and claim.needed]:
        need = "needs" if len(missing) == 1 else "need"
        lines += [
            "",
            f"What {' and '.join(missing)} {need} is not among the weights: `stillmotion claims --retrain` trains it first.",
        ]
    for name, (finding, _) in found.items():
        claim = CLAIMS[name]
        lines += ["", f"## {name}: {claim.sentence}", "", f"{claim.measured} The paper: {claim.where}.", ""]
        lines += ["| figure | mean | 95 % interval | clips | wanted |", "| --- | --- | --- | --- | --- |"]
        lines += ["| " + " | ".join(row(figure)) + " |" for figure in finding.figures]
        lines += ["", f"![{name}: means, intervals and what is wanted]({plots}/{name}.svg)"] if plots else []
        lines += ["", claim.note] if claim.note else []
    minutes = sum(seconds for _, seconds in found.values()) / 60
    machine = f"{os.cpu_count()} cores ({platform.machine()})"
    today = date.today().isoformat()  # noqa: DTZ011
    spent = f"Minutes are each claim's own, {minutes:.0f} together; claims may be measured side by side, and in several runs."
    lines += ["", f"Written on {today}, on {machine}. {spent}", ""]
    return "\n".join(lines)


def row(figure: Figure) -> list[str]:
    """Return a figure as the cells of a table: name, mean, interval, number of clips, what is wanted."""
    interval = figure.interval
    between = f"{figure.told(interval[0])} to {figure.told(interval[1])}" if interval else ""
    wanted = f"{figure.wanted}{'' if figure.holds else ': no'}"
    return [figure.name, figure.told(figure.mean), between, str(len(figure.values)), wanted]
