"""What raters said, counted."""

import json
from pathlib import Path

import numpy as np
import pytest

from stillmotion.cli.door import main
from stillmotion.errors import FileError
from stillmotion.evaluation.study import rank

METHODS = ["ours", "theirs", "zero"]


def write_answers(path: Path, places: np.ndarray, methods: list[str] = METHODS, raters: int = 1) -> Path:
    """A file of answers to the one question "text": a row of places per answer, dealt out to raters in turn."""
    lines: list[dict[str, object]] = [
        {"study": 1, "methods": methods, "questions": ["text"], "items": [f"i{n}" for n in range(len(places))]}
    ]
    for number, row in enumerate(places.tolist()):
        ranks = {"text": dict(zip(methods, row, strict=True))}
        lines.append({"rater": f"r{number % raters}", "item": f"i{number}", "ranks": ranks})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_average_user_ranking_and_friedman(tmp_path: Path) -> None:
    from scipy.stats import friedmanchisquare

    draw = np.random.default_rng(0)
    places = np.array([[1, 2, 3]] * 12 + [draw.permutation(3) + 1 for _ in range(8)])
    result = rank(write_answers(tmp_path / "a.jsonl", places, raters=4))
    (one,) = result.questions
    # The paper's score: of three methods the best place counts 3, the worst 1.
    assert list(one.average.values()) == pytest.approx((4 - places).mean(0))
    assert sum(one.average.values()) == pytest.approx(6)
    by_answers, by_raters = one.tests
    expected = friedmanchisquare(*places.T)
    assert (by_answers.blocks, by_answers.num_blocks) == ("answers", 20)
    assert [by_answers.statistic, by_answers.p] == pytest.approx([expected.statistic, expected.pvalue])
    assert (by_raters.blocks, by_raters.num_blocks) == ("raters", 4)
    low, high = one.interval["ours"] or (0, 0)
    assert low <= one.average["ours"] <= high <= 3
    assert (result.num_raters, result.num_answers) == (4, 20)


def test_two_methods_have_a_sign_test(tmp_path: Path) -> None:
    places = np.array([[1, 2]] * 9 + [[2, 1]])
    (one,) = rank(write_answers(tmp_path / "a.jsonl", places, ["a", "b"])).questions
    (test,) = one.tests
    assert test.name == "sign test" and test.statistic == 0.9
    assert test.p == pytest.approx(2 * 11 / 1024)  # ten or nine of ten, either way
    assert one.average == {"a": 1.9, "b": 1.1}


def test_one_answer_has_no_test(tmp_path: Path) -> None:
    result = rank(write_answers(tmp_path / "a.jsonl", np.array([[1, 2, 3]])))
    assert result.questions[0].tests == () and result.questions[0].interval["ours"] is None


def test_only_whole_and_last_answers_count(tmp_path: Path) -> None:
    file = write_answers(tmp_path / "a.jsonl", np.array([[1, 2, 3], [1, 2, 3]]))
    odd = [
        {"rater": "r0", "item": "i0", "ranks": {"text": {"ours": 3, "theirs": 2, "zero": 1}}},  # thought again
        {"rater": "r0", "item": "i1", "ranks": {"text": {"ours": 1, "theirs": 1, "zero": 1}}},
        {"rater": "r0", "item": "i1", "ranks": {"text": {"ours": True, "theirs": 2, "zero": 3}}},
        {"rater": "r0", "item": "elsewhere", "ranks": {"text": {"ours": 1, "theirs": 2, "zero": 3}}},
        {"rater": "r0", "item": "i1", "ranks": {}},
        ["no answer"],
    ]
    with file.open("a") as stream:
        stream.write("".join(json.dumps(line) + "\n" for line in odd) + '{"rater": "r0", "it')
    result = rank(file)
    assert result.num_answers == 2
    assert result.questions[0].average == {"ours": 2.0, "theirs": 2.0, "zero": 2.0}
    assert result.questions[0].tests[0].p == pytest.approx(1)


def test_what_holds_no_answers_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no such file"):
        rank(tmp_path / "none.jsonl")
    (tmp_path / "words").write_text("words\n")
    with pytest.raises(FileError, match="expected the answers of `stillmotion study`"):
        rank(tmp_path / "words")
    unanswered = tmp_path / "unanswered"
    unanswered.write_text(json.dumps({"study": 1, "methods": METHODS, "questions": ["text"], "items": ["i"]}) + "\n")
    with pytest.raises(FileError, match="nobody has answered yet"):
        rank(unanswered)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_answers(tmp_path / "a.jsonl", np.array([[1, 2, 3]] * 5))
    assert main(["study", "report", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "method\ttext"
    assert lines[1] == "ours\t3.000 (3.00 to 3.00)"
    assert lines[4] == "text: Friedman over 5 answers: chi2 = 10.00, p = 0.006738"
    assert main(["study", "report", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["questions"]["text"]["average_user_ranking"]["zero"] == 1
    assert main(["study", "report", str(tmp_path / "no.jsonl")]) == 2
