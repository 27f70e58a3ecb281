"""Published data sets, from local files of the same shape that these tests write; the hub cannot be reached here."""

import pytest
from data_sets import rows_of, write

from rl_posttrain.errors import HubError, RecipeError

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
MATH = [
    {"problem": "What is $1+1$?", "level": "Level 1", "type": "Algebra", "solution": "It is $\\boxed{2}$."},
    {"problem": "Solve $x^2=4$, $x>0$.", "level": "Level 3", "type": "Algebra", "solution": "So $x=\\fbox{2}$."},
    {"problem": "What is $2+2$?", "level": "Level ?", "type": "Geometry", "solution": "$\\boxed 4$."},
    {"problem": "What is $3+3$?", "level": "Level 5", "type": "Geometry", "solution": "Clear."},
    {"problem": "What is  $1{,}000$?", "level": "Level 2", "type": "Algebra", "solution": "$\\boxed{1000}$"},
]
MATH_500 = [
    {"problem": "What is $1000$?", "solution": "$\\boxed{1000}$", "answer": "1000", "subject": "Algebra", "level": 2},
    {"problem": "What is $7+7$?", "solution": "$\\boxed{14}$", "answer": "14", "subject": "Number Theory", "level": 4},
]


def without_prompts(rows):
    return [{name: value for name, value in row.items() if name != "prompt"} for row in rows]


def by_question(rows):
    return sorted(without_prompts(rows), key=lambda row: row["question"])


def test_math_trains_without_the_problems_that_it_is_evaluated_on(tmp_path):
    paths = {
        "path": write(tmp_path / "train.parquet", MATH), "eval_path": write(tmp_path / "test.jsonl", MATH_500)
    }  # fmt: skip
    rows = rows_of("math", **paths)
    assert without_prompts(rows.eval) == [
        {"question": "What is $1000$?", "answer": "1000", "level": 2, "subject": "Algebra"},
        {"question": "What is $7+7$?", "answer": "14", "level": 4, "subject": "Number Theory"},
    ]
    assert by_question(rows.train) == [
        {"question": "Solve $x^2=4$, $x>0$.", "answer": "2", "level": 3, "subject": "Algebra"},
        {"question": "What is $1+1$?", "answer": "2", "level": 1, "subject": "Algebra"},
        {"question": "What is $2+2$?", "answer": "4", "level": None, "subject": "Geometry"},
    ]
    assert rows.notes == (
        "1 rows without a question or a gold are left out",
        "1 training rows are left out: they are among those to evaluate on",
    )
    assert rows.eval[1]["prompt"] == [
        {"role": "system", "content": BOXED}, {"role": "user", "content": "What is $7+7$?"}
    ]  # fmt: skip
    assert {row["level"] for row in rows_of("math", **paths, train_levels=[1, 5]).train} == {1}


def test_math_alone_is_evaluated_without_its_training_rows(tmp_path):
    rows = rows_of(
        "math", path="no/such", eval_path=write(tmp_path / "test.jsonl", MATH_500), prompts_per_step=0, template="chat"
    )
    assert rows.eval[0]["prompt"] == [{"role": "user", "content": f"What is $1000$? {BOXED}"}]


def test_aime_is_of_the_years_that_are_asked_for(tmp_path):
    for year in (24, 25, 26):
        rows = [{"id": i, "problem": f"{year}: {i}?", "answer": str(i) if year < 26 else i} for i in range(30)]
        write(tmp_path / f"aime{year}.jsonl", rows)
    assert len(rows_of("aime", path=str(tmp_path), prompts_per_step=0).eval) == 90
    rows = rows_of("aime", path=str(tmp_path), years=[24, 26], prompts_per_step=0)
    assert without_prompts(rows.eval[::30]) == [
        {"question": "24: 0?", "answer": "0", "year": 24}, {"question": "26: 0?", "answer": "0", "year": 26}
    ]  # fmt: skip
    alone = rows_of("aime", path=str(tmp_path / "aime25.jsonl"), prompts_per_step=0)
    assert without_prompts(alone.eval[:1]) == [{"question": "25: 0?", "answer": "0", "year": None}]
    (tmp_path / "aime25.jsonl").rename(tmp_path / "aime25")  # no data, by its name
    for options, reason in (
        ({"years": [23]}, "task.years=[23]: the years are 24, 25, 26; list some of them"),
        ({"years": []}, "task.years=[]: the years are"),
        ({"years": [25], "path": str(tmp_path)}, f"task.path={tmp_path}: no file of the year 25; add aime25.jsonl"),
        ({"path": str(tmp_path), "years": [24], "prompts_per_step": 1}, "task.name=aime: it has rows to evaluate on o"),
    ):
        with pytest.raises(RecipeError) as caught:
            rows_of("aime", **{"prompts_per_step": 0, **options})
        assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("amc", {"id": 0, "question": "Cities?", "answer": 27.0, "url": "u"}, {"question": "Cities?", "answer": "27"}),
        ("minerva", {"question": "Each?", "answer": "$1.2e6$"}, {"question": "Each?", "answer": "$1.2e6$"}),
        ("olympiad_bench", {"question": "Roots?", "final_answer": ["$2$", "$-2$"], "subfield": "Algebra", "unit": None},
         {"question": "Roots?", "answer": "$2$, $-2$", "subject": "Algebra"}),
    ],
)  # fmt: skip
def test_data_sets_to_evaluate_on(tmp_path, name, data, expected):
    rows = rows_of(name, path=write(tmp_path / "test.parquet", [data]), prompts_per_step=0)
    assert without_prompts(rows.eval) == [expected]
    with pytest.raises(RecipeError, match=rf"task\.name={name}: it has rows to evaluate on only; "):
        rows_of(name, path=str(tmp_path / "test.parquet"))


def dapo_row(question, gold, index=0):
    content = (
        "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
        f"$Answer (without quotes) where $Answer is the answer to the problem.\n\n{question}\n\n"
        'Remember to put your answer on its own line after "Answer:".'
    )
    return {
        "data_source": "math_dapo",
        "prompt": [{"content": content, "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": gold, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": str(index)},
    }


def test_dapo_math_has_each_problem_once_and_without_its_instruction(tmp_path):
    problems = [("In triangle $ABC$:\n\nfind $a+b$.", "34"), ("What is $1+1$?", "2"), ("What is  $1 + 1$?", "2")]
    rows = [dapo_row(*problem, index=i) for i in range(5) for problem in problems[:2]]
    rows += [dapo_row("What  is $1+1$?", "2"), dapo_row("Empty?", "")]
    made = rows_of("dapo_math", path=write(tmp_path / "dapo-math-17k.parquet", rows), template="qa", num_eval=0)
    assert by_question(made.train) == [
        {"question": "In triangle $ABC$:\n\nfind $a+b$.", "answer": "34"},
        {"question": "What is $1+1$?", "answer": "2"},
    ]
    assert made.notes[0] == "1 rows without a question or a gold are left out"
    assert made.notes[1] == "9 of 11 rows repeat a question and are left out"
    plain = [{"prompt": "What is $1+1$?", "reward_model": {"ground_truth": "2"}}]
    (row,) = rows_of("dapo_math", path=write(tmp_path / "plain.jsonl", plain), num_eval=0).train
    assert row["question"] == "What is $1+1$?"


def test_deepscaler_has_each_problem_once(tmp_path):
    rows = [{"problem": f"p{i % 3}?", "answer": f"\\frac{{1}}{{{i % 3}}}", "solution": "..."} for i in range(5)]
    made = rows_of("deepscaler", path=write(tmp_path / "deepscaler.jsonl", rows), num_eval=1)
    assert len(made.train) == 2
    assert len(made.eval) == 1
    assert made.notes == ("2 of 5 rows repeat a question and are left out",)


@pytest.mark.parametrize("name", ["math", "aime", "amc", "minerva", "olympiad_bench", "dapo_math", "deepscaler"])
def test_without_a_hub_each_names_its_source(offline, name):
    with pytest.raises(HubError, match=r"^task\.(eval_)?path=[\w./-]+: no such file .*the hub did not give"):
        rows_of(name)
