"""`rl-posttrain golds`: golds of files and tasks, tried in other writings and in wrong ones."""

import json

import pytest

from rl_posttrain.errors import RecipeError
from rl_posttrain.rewards.writings import Writing
from rl_posttrain.scoring.gold_sources import golds_in
from rl_posttrain.scoring.trial import COUNTS, Tried, by_kind, try_golds

SENTENCE = "She has 5 apples left in the basket now."


@pytest.fixture
def questions(tmp_path):
    """Four golds that are read, one that is not, one row without a gold, and a gold that stands twice."""
    golds = ["12", "12", "0.75", "B", r"\frac{", SENTENCE, None]
    path = tmp_path / "questions.jsonl"
    rows = [{"question": f"Why {place}?", "solution": gold, "info": {"best": "7"}} for place, gold in enumerate(golds)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_golds_are_counted_by_kind_with_what_is_paid(questions):
    result = try_golds(golds_in(str(questions)), num=10, num_writings=6, show=2)
    assert (result["num_rows"], result["num_different"], result["num_tried"]) == (6, 5, 5)
    kinds = {kind: [counts[name] for name in COUNTS] for kind, counts in result["kinds"].items()}
    assert kinds["other"][:2] == [2, 1]
    assert {kind: kinds[kind] for kind in ("integer", "decimal", "choice")} == {
        kind: [1, 0, 6, 6, 6, 0] for kind in ("integer", "decimal", "choice")
    }
    assert [result["total"][name] for name in COUNTS] == [sum(counts) for counts in zip(*kinds.values(), strict=True)]


def test_failures_are_listed_up_to_a_number_of_each_kind_with_wrong_answers_that_are_paid_first():
    tried = [
        Tried("12", Writing("commas", "12"), True, True),
        Tried("12", Writing("bold", r"\bm{12}"), True, False),
        Tried("7", Writing("sign", "-7"), False, True),
        Tried("12", Writing("twice", "24"), False, False),
        Tried("7", Writing("tail", "71"), False, True),
        Tried("B", Writing("font", r"\mathrm{B}", "tag"), True, False),
    ]
    kinds = by_kind(["12", "B", "7", r"\frac{"], {r"\frac{"}, tried, 2)
    assert {kind: [counts[name] for name in COUNTS] for kind, counts in kinds.items()} == {
        "integer": [2, 0, 2, 1, 3, 2],
        "choice": [1, 0, 1, 0, 0, 0],
        "other": [1, 1, 0, 0, 0, 0],
    }
    assert [failure["rule"] for failure in kinds["integer"]["failures"]] == ["sign", "tail"]
    assert kinds["choice"]["failures"] == [
        {
            "gold": "B",
            "rule": "font",
            "completion": "<think>Let us see.</think>\n<answer>\\mathrm{B}</answer>",
            "paid": 0.0,
            "should_be": 1.0,
        }
    ]


def test_more_golds_than_asked_for_are_drawn_by_the_seed():
    golds = [str(number) for number in range(100)]
    first, second, other = (
        try_golds(golds, num=7, num_writings=3, seed=seed)["kinds"]["integer"] for seed in (0, 0, 1)
    )
    assert first == second
    assert first["golds"] == other["golds"] == 7


def test_golds_come_from_a_column_or_a_task(questions, tmp_path):
    assert golds_in(str(questions)) == ["12", "12", "0.75", "B", r"\frac{", SENTENCE]
    assert golds_in(str(questions), "info.best") == ["7"] * 7
    table = tmp_path / "table.csv"
    table.write_text("question,answer,solution\nWhy?,5,so it is #### 6\n")
    assert golds_in(str(table)) == ["5"]
    assert golds_in(str(table), "solution") == ["6"]
    assert all(abs(int(gold)) <= 18 for gold in golds_in("arithmetic"))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("solutoin", "--column=solutoin: FILE={path} has no such column; did you mean 'solution'?"),
        ("xyz", "--column=xyz: FILE={path} has no such column; known: info, info.best, question, solution"),
    ],
)
def test_a_column_that_is_not_there_is_one_line(questions, column, message):
    with pytest.raises(RecipeError) as error:
        golds_in(str(questions), column)
    assert str(error.value) == message.format(path=questions)


def test_sources_without_golds_are_one_line(tmp_path):
    path = tmp_path / "none.jsonl"
    path.write_text('{"question": "Why?", "label": null}\n')
    with pytest.raises(RecipeError, match=r"which column has the golds\? It has question, label; set --column$"):
        golds_in(str(path))
    with pytest.raises(RecipeError, match=r"no gold in 1 rows \(the column 'label'\); name the column of the answers$"):
        golds_in(str(path), "label")
    path.write_text("")
    with pytest.raises(RecipeError, match=r"has no rows; write some into it$"):
        golds_in(str(path))
    with pytest.raises(RecipeError, match="--column=answer: arithmetic is a task"):
        golds_in("arithmetic", "answer")


def test_the_command_prints_a_table_and_json(questions, run_main):
    status, stdout, stderr = run_main("golds", str(questions), "--num-writings", "4")
    assert (status, stderr) == (0, "")
    lines = stdout.splitlines()
    assert lines[0] == f"{questions}: 5 of 5 different golds (6 rows)"
    assert "integer 1 0 4 of 4 100.00% 0 of 4" in [" ".join(line.split()) for line in lines]
    status, stdout, _ = run_main("golds", str(questions), "--num-writings", "4", "--json")
    assert status == 0
    assert json.loads(stdout) == {"source": str(questions)} | try_golds(
        golds_in(str(questions)), num=500, num_writings=4
    )
    status, _, stderr = run_main("golds", "no_such_file.jsonl")
    assert status == 2
    assert stderr.startswith("rl-posttrain: FILE=no_such_file.jsonl: no such file or folder; ")
