"""The study: what is shown to whom, what is kept, what the server gives and refuses."""

import http.client
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import av
import numpy as np
import pytest
from PIL import Image

from stillmotion.data import write_clip
from stillmotion.errors import ConfigError, FileError, MismatchError
from stillmotion.evaluation.study import Answer, Answers, Study, StudyConfig, StudyServer, plan_study, read_answers

PROMPTS = {"ball": "a red ball rolling right", "star": "a blue star growing <b>"}


@pytest.fixture
def folders(tmp_path: Path, panned: np.ndarray) -> list[Path]:
    """Three methods' clips of two prompts, each in a format of its own; one has a clip more."""
    frames = panned[:4, :48, :48]
    found = []
    for method, ending in (("ours", ".mp4"), ("theirs", ".gif"), ("zero", "")):
        for name, prompt in PROMPTS.items():
            record = {"config": {"prompt": prompt}, "models": [method]}
            write_clip(frames, tmp_path / method / f"{name}{ending}", 8, metadata=record)
        found.append(tmp_path / method)
    write_clip(frames, tmp_path / "ours" / "more.gif", 8)
    return found


@pytest.fixture
def config(folders: list[Path], pictures: Path, tmp_path: Path) -> StudyConfig:
    return StudyConfig(
        methods=tuple(map(str, folders)), references=pictures, answers=tmp_path / "kept" / "answers.jsonl", port=0
    )


@pytest.fixture
def study(config: StudyConfig) -> Study:
    return plan_study(config)


@pytest.fixture
def server(config: StudyConfig, study: Study) -> Iterator[StudyServer]:
    with StudyServer(study, Answers(config.answers, study)) as running:
        yield running


Ask = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture
def ask(server: StudyServer) -> Ask:
    """Send one request as it stands, the path untouched."""

    def send(
        method: str, path: str, form: dict[str, str] | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        address = urlsplit(server.url)
        line = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
        body = urlencode(form) if form is not None else None
        line.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = line.getresponse()
        content = answer.read()
        line.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content

    return send


def places(study: Study, *order: int) -> dict[str, str]:
    """A form that gives A, B and C these places for every question."""
    given = zip("ABC", order, strict=True)
    return {f"{name}-{letter}": str(place) for letter, place in given for name in study.questions}


def test_the_plan(study: Study) -> None:
    assert study.methods == ("ours", "theirs", "zero")
    assert study.questions == ("text", "domain", "smoothness")
    assert [(item.name, item.prompt) for item in study.items] == [*PROMPTS.items()]
    assert [len(item.references) for item in study.items] == [2, 2]
    assert study.notes == ("left out, since not every method has it: more",)


def test_orders_are_each_raters_own_and_stay(study: Study) -> None:
    raters = [f"rater {number}" for number in range(60)]
    shown = [tuple(study.order_of_methods(rater, 0)) for rater in raters]
    assert len(set(shown)) == 6
    firsts = [order[0] for order in shown]
    assert min(firsts.count(method) for method in study.methods) > 8
    assert shown == [tuple(study.order_of_methods(rater, 0)) for rater in raters]
    assert {tuple(study.order_of_items(rater)) for rater in raters} == {(0, 1), (1, 0)}


def test_what_cannot_be_compared_is_named(config: StudyConfig, folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="methods: expected 2 to 6 folders"):
        StudyConfig(methods=("one",))
    with pytest.raises(ConfigError, match="domain is asked against reference pictures"):
        StudyConfig(methods=("a", "b"), questions=("domain",))
    assert StudyConfig(methods=("a", "b")).asked() == ("text", "smoothness")
    with pytest.raises(FileError, match="nowhere does not exist; give a folder of clips"):
        plan_study(config.replace(methods=(str(folders[0]), str(tmp_path / "nowhere"))))
    with pytest.raises(MismatchError, match="the same folder is given twice"):
        plan_study(config.replace(methods=(str(folders[0]), str(folders[0]))))
    other = tmp_path / "other"
    write_clip(np.zeros((2, 32, 32, 3), np.uint8), other / "third.gif", 8)
    with pytest.raises(MismatchError, match=r"no clip has the same file name in all folders.*other: third"):
        plan_study(config.replace(methods=(str(folders[0]), str(other))))
    write_clip(np.zeros((2, 32, 32, 3), np.uint8), other / "more.gif", 8)
    with pytest.raises(MismatchError, match="more: no clip says its prompt"):
        plan_study(config.replace(methods=(str(folders[0]), str(other))))
    write_clip(np.zeros((2, 32, 32, 3), np.uint8), other / "ball.gif", 8, metadata={"config": {"prompt": "else"}})
    with pytest.raises(MismatchError, match="ball: the methods' clips were made from different prompts"):
        plan_study(config.replace(methods=(str(folders[0]), str(other))))


def test_run_folders_are_compared_whenever_they_were_made(tmp_path: Path, panned: np.ndarray) -> None:
    for method, time in (("a", "20260101-120000"), ("b", "20260202-130000")):
        write_clip(panned[:2], tmp_path / method / f"{time}-a-ball-7" / "clip.gif", 8)
        (tmp_path / method / f"{time}-a-ball-7" / "run.json").write_text(json.dumps({"config": {"prompt": "a ball"}}))
    found = plan_study(StudyConfig(methods=(str(tmp_path / "a"), str(tmp_path / "b"))))
    assert [(item.name, item.prompt) for item in found.items] == [("a-ball-7", "a ball")]


def test_answers_are_added_and_gone_on_with(config: StudyConfig, study: Study) -> None:
    answers = Answers(config.answers, study)
    ranks = {name: {"ours": 1, "theirs": 2, "zero": 3} for name in study.questions}
    answers.add(Answer(rater="Ann", item="ball", ranks=ranks), ["zero", "ours", "theirs"], 12.5)
    before = config.answers.read_bytes()
    with config.answers.open("ab") as file:
        file.write(b'{"rater":"Ann","item":"st')  # a crash in the midst of a line
    again = Answers(config.answers, study)
    assert set(again.of("Ann")) == {"ball"} and again.of("Bob") == {}
    again.add(Answer(rater="Ann", item="star", ranks=ranks), ["ours", "theirs", "zero"])
    assert config.answers.read_bytes().startswith(before)
    assert {answer.item for answer in read_answers(config.answers)[1]} == {"ball", "star"}


def test_another_studys_answers_are_left_alone(config: StudyConfig, study: Study, folders: list[Path]) -> None:
    Answers(config.answers, study)
    before = config.answers.read_bytes()
    other = plan_study(config.replace(methods=tuple(map(str, folders[:2]))))
    with pytest.raises(MismatchError, match="answers of another study: its methods are ours, theirs, zero"):
        Answers(config.answers, other)
    assert config.answers.read_bytes() == before


def test_a_rater_goes_through(ask: Ask, study: Study, config: StudyConfig) -> None:
    status, headers, page = ask("GET", "/")
    assert status == 200 and b"2 times 3 short clips" in page
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert ask("POST", "/start", {"rater": "  "})[0] == 400
    status, headers, _ = ask("POST", "/start", {"rater": " Ann & Bob "})
    assert (status, headers["location"]) == (303, "/rate?rater=Ann%20%26%20Bob")
    rater = "Ann & Bob"
    status, _, page = ask("GET", headers["location"])
    assert status == 200 and b"1 of 2" in page and rater.replace("&", "&amp;").encode() in page

    # Two clips in one place: told, nothing kept, what was chosen stays.
    status, _, page = ask("POST", "/rate", {"rater": rater, "item": "1", **places(study, 1, 1, 2)})
    assert status == 400 and b"give each clip a place of its own" in page and page.count(b" checked") == 9
    assert read_answers(config.answers)[1] == []

    assert ask("POST", "/rate", {"rater": rater, "item": "1", **places(study, 2, 3, 1)})[0] == 303
    first = study.items[study.order_of_items(rater)[0]]
    (kept,) = read_answers(config.answers)[1]
    shown = study.order_of_methods(rater, study.order_of_items(rater)[0])
    assert kept.item == first.name and kept.rater == rater
    assert kept.ranks == {name: dict(zip(shown, (2, 3, 1), strict=True)) for name in study.questions}

    assert b"2 of 2" in ask("GET", headers["location"])[2]  # gone on with
    assert ask("POST", "/rate", {"rater": rater, "item": "2", **places(study, 1, 2, 3)})[0] == 303
    assert b"Thank you" in ask("GET", headers["location"])[2]
    assert b"1 of 2" in ask("GET", "/rate?rater=Eve")[2]


def test_nothing_tells_the_method(ask: Ask, study: Study) -> None:
    page = ask("GET", "/rate?rater=Ann")[2].decode()
    assert not any(method in page for method in study.methods)
    assert "a blue star growing &lt;b&gt;" in page or "a red ball" in page
    clips = [word.split('"')[1] for word in page.split("<video ")[1:]]
    assert len(set(clips)) == 3
    for clip in clips:
        status, headers, content = ask("GET", clip)
        assert (status, headers["content-type"]) == (200, "video/webm")
        assert not any(method.encode() in content for method in study.methods)
        with av.open(io.BytesIO(content)) as container:
            assert container.metadata.get("COMMENT") == '{"stillmotion":{}}'  # the same in all of them
            assert sum(1 for _ in container.decode(video=0)) == 4


def test_parts_of_clips(ask: Ask) -> None:
    page = ask("GET", "/rate?rater=Ann")[2].decode()
    clip = page.split("<video ")[1].split('"')[1]
    whole = ask("GET", clip)[2]
    status, headers, part = ask("GET", clip, Range="bytes=10-19")
    assert (status, part) == (206, whole[10:20]) and headers["content-range"] == f"bytes 10-19/{len(whole)}"
    assert ask("GET", clip, Range="bytes=10-")[2] == whole[10:]
    assert ask("GET", clip, Range=f"bytes={len(whole)}-")[0] == 416


def test_nothing_else_is_served(ask: Ask) -> None:
    for path in (
        "/../../etc/passwd",
        "/shown/../../../etc/passwd",
        "/shown/%2e%2e/%2e%2e/etc/passwd",
        "/shown/",
        "//etc/passwd",
        "/style.css/../../pages.py",
        "/answers.jsonl",
        "/rate/",
    ):
        assert ask("GET", path)[0] == 404, path


def test_other_sites_are_refused(ask: Ask, server: StudyServer, study: Study, config: StudyConfig) -> None:
    assert server.url.startswith("http://127.0.0.1:")
    form = {"rater": "Eve", "item": "1", **places(study, 1, 2, 3)}
    assert ask("GET", "/", Host="evil.example")[0] == 403  # a name that somebody points at this machine
    for origin in ("http://evil.example", "null", f"{server.url}evil"):
        assert ask("POST", "/rate", form, Origin=origin)[0] == 403
    assert ask("POST", "/rate", {"x": "y" * 70_000})[0] == 413
    for wrong in ({"item": "0"}, {"item": "3"}, {"item": "1" * 400}, {"item": "../1"}, {"rater": ""}):
        assert ask("POST", "/rate", {**form, **wrong})[0] == 400
    assert ask("PUT", "/")[0] == 501
    assert read_answers(config.answers)[1] == []
    assert ask("POST", "/rate", form, Origin=server.url.rstrip("/"))[0] == 303


def test_a_port_that_is_taken_is_named(server: StudyServer, study: Study, tmp_path: Path) -> None:
    port = urlsplit(server.url).port
    assert port is not None
    with pytest.raises(ConfigError, match=f"port: {port} cannot be used"):
        StudyServer(study, Answers(tmp_path / "other.jsonl", study), port=port)


def test_a_picture_that_is_none_is_named(config: StudyConfig, pictures: Path) -> None:
    (pictures / "a.png").write_text("words")
    with pytest.raises(FileError, match=r"a\.png: expected a picture"):
        plan_study(config)
    Image.new("RGB", (8, 8)).save(pictures / "a.png")
    assert len(plan_study(config).items[0].references) == 3
