"""The plot of a claim shows every figure, its interval and what is wanted; the report leads to it."""

import math
from pathlib import Path
from xml.etree import ElementTree as ET

from stillmotion.claims.finding import Figure, Finding
from stillmotion.claims.plot import plot
from stillmotion.claims.report import write_report

SVG = "{http://www.w3.org/2000/svg}"
GOOD = Figure(name="moves & stays", values=[1, 1, 0, 1], at_least=0.5, as_share=True)
BAD = Figure(name="less than before", values=[0.5, 0.7, -0.9], surely_above=0.0)
FREE = (
    Figure(name="ours", values=[1.0, 2.0], scale="flicker"),
    Figure(name="theirs", values=[4.0, 6.0], scale="flicker"),
)
FINDING = Finding(figures=(GOOD, BAD, *FREE))


def test_an_interval_must_exclude_the_number() -> None:
    sure = Figure(name="more", values=[0.5, 0.7, 0.6], surely_above=0.0)
    assert sure.holds
    assert sure.wanted == "interval above 0"
    assert not BAD.holds
    assert not Figure(name="more", values=[0.5], surely_above=0.0).holds
    assert not Figure(name="same", values=[0.0, 0.0], surely_above=0.0).holds
    assert Figure(name="less", values=[-0.5, -0.7, -0.6], surely_below=0.0).holds
    assert not Figure(name="less", values=[0.5, -0.7, 0.6], surely_below=0.0).holds


def test_every_figure_is_drawn_where_it_is() -> None:
    drawn = plot("C6", FINDING)
    assert drawn == plot("C6", FINDING)
    root = ET.fromstring(drawn)
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"C6 does not hold", "moves & stays", "75.0% · yes", "0.1 · no", "1.5", "5"} <= set(texts)
    circles = [(dot.get("class"), float(dot.get("cx") or "nan")) for dot in root.iter(f"{SVG}circle")]
    assert [kind for kind, _ in circles] == ["yes", "no", "free", "free"]
    assert circles[2][1] < circles[3][1]  # on one scale
    limits = [line for line in root.iter(f"{SVG}line") if line.get("class") == "wanted"]
    assert len(limits) == 2
    bars = [line for line in root.iter(f"{SVG}line") if line.get("stroke-width")]
    for bar, (_, middle) in zip(bars, circles, strict=True):
        assert float(bar.get("x1") or "nan") <= middle <= float(bar.get("x2") or "nan")


def test_what_has_no_number_is_drawn_without() -> None:
    drawn = plot("C1", Finding(figures=(Figure(name="none", values=[], at_least=0.5),)))
    assert "nan · no" in drawn
    assert "<circle" not in drawn
    assert math.isnan(Figure(name="none", values=[]).mean)


def test_the_report_shows_its_plots(tmp_path: Path) -> None:
    write_report({"C6": (FINDING, 60.0)}, tmp_path / "claims.md")
    written = (tmp_path / "claims.md").read_text(encoding="utf-8")
    assert "](claims/C6.svg)" in written
    assert (tmp_path / "claims" / "C6.svg").read_text(encoding="utf-8") == plot("C6", FINDING)
