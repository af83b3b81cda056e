"""The pages in a real, headless Chromium: the study from the first page to the last by keyboard, and the report."""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stillmotion as sm
from stillmotion.data import write_clip
from stillmotion.evaluation.study import Answers, StudyConfig, StudyServer, plan_study, rank, read_answers

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = os.environ.get("CHROMIUM") or next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed (apt install chromium, or name it in CHROMIUM)")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A page that fails the test for a script's error, a refused file, or a request that leaves the machine."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    shown = context.new_page()
    shown.set_default_timeout(60_000)  # a busy machine
    wrong: list[str] = []
    shown.on("pageerror", lambda error: wrong.append(str(error)))
    shown.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    shown.on(
        "request",
        lambda asked: None if re.match(r"http://127\.0\.0\.1|file:|data:", asked.url) else wrong.append(asked.url),
    )
    yield shown
    context.close()
    assert wrong == []


def wait_until(page: Any, expression: str, seconds: float = 60) -> None:
    """Wait for an expression to be true, asked from outside: the page's own policy allows no evaluated text."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


def test_a_study_by_keyboard(page: Any, tmp_path: Path, panned: np.ndarray, pictures: Path) -> None:
    for method in ("ours", "theirs", "zero"):
        record = {"config": {"prompt": "a ball"}}
        write_clip(panned[:4, :64, :64], tmp_path / method / "ball.gif", 8, metadata=record)
    folders = tuple(str(tmp_path / name) for name in ("ours", "theirs", "zero"))
    config = StudyConfig(methods=folders, references=pictures, answers=tmp_path / "answers.jsonl")
    study = plan_study(config)
    with StudyServer(study, Answers(config.answers, study)) as server:
        page.goto(server.url)
        assert page.evaluate("document.activeElement.id") == "rater"
        page.keyboard.type("Ann")
        page.keyboard.press("Enter")
        page.wait_for_url("**/rate?rater=Ann")
        wait_until(page, "[...document.querySelectorAll('video')].every(v => v.readyState >= 2 && !v.paused)")
        assert page.evaluate("[...document.images].every(picture => picture.naturalWidth > 0)")
        assert page.get_by_role("group", name="Which clip moves most smoothly?").count() == 1

        def places(question: str) -> list[str | None]:
            return page.evaluate(
                "name => [...'ABC'].map(l => document.querySelector(`input[name=${name}-${l}]:checked`)?.value ?? null)",
                question,
            )

        # A is 1st and B 2nd: what is left falls to C.
        page.locator("input[name=text-A]").first.focus()
        page.keyboard.press("Space")
        assert places("text") == ["1", None, None]
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowRight")  # from none, the arrow takes the second
        assert places("text") == ["1", "2", "3"]
        # B takes the 1st place: A has B's instead, so it stays a ranking.
        page.keyboard.press("ArrowLeft")
        assert places("text") == ["2", "1", "3"]
        page.get_by_role("button", name="Keep and go on").click()  # the other questions are open still
        assert page.url.endswith("/rate?rater=Ann") and read_answers(config.answers)[1] == []
        for name in ("domain", "smoothness"):
            page.locator(f"input[name={name}-C][value='1']").check(force=True)
            page.locator(f"input[name={name}-A][value='2']").check(force=True)
            assert places(name) == ["2", "3", "1"]
        page.get_by_role("button", name="Keep and go on").click()
        page.get_by_role("heading", name="Thank you, Ann").wait_for()

        page.get_by_role("link", name="Look at the last one again").click()
        page.wait_for_load_state()
        assert places("text") == ["2", "1", "3"]
        page.set_viewport_size({"width": 380, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 380
    (answer,) = read_answers(config.answers)[1]
    shown = study.order_of_methods("Ann", 0)
    assert answer.ranks["text"] == dict(zip(shown, (2, 1, 3), strict=True))
    assert rank(config.answers).num_raters == 1


def test_the_report(page: Any, tmp_path: Path, panned: np.ndarray, written: Callable[..., Path]) -> None:
    clips = [str(written(panned, name, "<img src=x onerror=alert(1)>")) for name in ("a", "b")]
    config = sm.EvaluateConfig(clips=tuple(clips), metrics=("motion", "pan", "flicker"), output_dir=tmp_path / "out")
    found = sm.evaluate(config)
    assert found.folder is not None
    page.goto((found.folder / "report.html").as_uri())
    wait_until(page, "[...document.querySelectorAll('video')].every(v => v.readyState >= 2 && v.videoWidth > 0)")
    assert page.locator("video").count() == 2 and page.locator("img").count() == 0
    assert page.locator("tbody tr").count() == 3
    page.get_by_text("Over the frames").first.click()
    assert page.get_by_role("img", name="over 8 steps").first.is_visible()
    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
