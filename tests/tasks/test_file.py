"""Your own files: columns, golds, parts, and what is wrong with them."""

import json

import pytest
from data_sets import rows_of, write

from rl_posttrain.errors import RecipeError

MINE = [
    {"problem": f"What is {i} + 1?", "solution": f"{i} + 1 = \\boxed{{{i + 1}}}", "level": i % 3} for i in range(12)
]


def columns_of(rows):
    return [{name: value for name, value in row.items() if name != "prompt"} for row in rows]


def test_columns_are_mapped_and_others_keep_their_names(tmp_path):
    path = write(tmp_path / "my.jsonl", MINE)
    rows = rows_of("file", path=path, columns={"prompt": "problem", "answer": "solution"}, num_eval=3)
    assert (len(rows.train), len(rows.eval)) == (9, 3)
    by_question = {row["question"]: row for row in columns_of(rows.train + rows.eval)}
    assert by_question["What is 4 + 1?"] == {"question": "What is 4 + 1?", "answer": "5", "level": 1}
    assert rows.train[0]["prompt"] == f"Q: {rows.train[0]['question']}\nA:"
    assert rows.notes == ()
    renamed = rows_of("file", path=path, columns={"question": "problem", "answer": "solution", "difficulty": "level"})
    assert set(renamed.train[0]) == {"prompt", "question", "answer", "difficulty"}


def test_names_that_leave_no_doubt_are_taken_and_told(tmp_path):
    rows = rows_of("file", path=write(tmp_path / "my.jsonl", MINE), num_eval=0)
    assert rows.train[0]["answer"].isdigit()
    assert rows.notes == ("columns taken by their names: question from problem, answer from solution",)
    both = [{"question": "Why?", "answer": "4", "solution": "2 + 2 = 4"}]
    rows = rows_of("file", path=write(tmp_path / "both.jsonl", both), num_eval=0)
    assert columns_of(rows.train) == both


def test_the_shape_of_verl_is_read(tmp_path):
    rows = [
        {
            "data_source": "math",
            "prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": f"What is {i}?"}],
            "reward_model": {"style": "rule", "ground_truth": str(i)},
            "extra_info": {"index": i, "split": "train"},
        }
        for i in range(4)
    ]
    path = write(tmp_path / "train.parquet", rows)
    made = rows_of("file", path=path, num_eval=0, columns={"index": "extra_info.index"})
    (row,) = (row for row in made.train if row["index"] == 2)
    assert row["prompt"] == rows[2]["prompt"]  # chat messages stay the prompt
    assert (row["answer"], row["data_source"], made.template) == ("2", "math", None)
    with pytest.raises(RecipeError, match=r"task\.template=qa: .*prompts ready.*`question` in place of `prompt`"):
        rows_of("file", path=path, num_eval=0, template="qa")
    asked = rows_of("file", path=path, num_eval=0, template="qa", columns={"question": "prompt"})
    assert {row["prompt"] for row in asked.train} == {f"Q: What is {i}?\nA:" for i in range(4)}


@pytest.mark.parametrize(
    ("answers", "golds"),
    [
        (["1 + 1 = 2\n#### 2", "#### 1,000"], ["2", "1,000"]),
        ([18, -3], ["18", "-3"]),
        ([18.0, 0.5], ["18", "0.5"]),
        ([["4"], ["1", "2"]], ["4", "1, 2"]),
        (["\\frac{1}{2}", " 7 "], ["\\frac{1}{2}", "7"]),
    ],
)
def test_golds_are_read_as_people_ship_them(tmp_path, answers, golds):
    path = write(tmp_path / "a.jsonl", [{"question": f"q{i}", "answer": a} for i, a in enumerate(answers)])
    rows = sorted(rows_of("file", path=path, num_eval=0).train, key=lambda row: row["question"])
    assert [row["answer"] for row in rows] == golds


def test_a_float_column_of_csv_gives_whole_numbers(tmp_path):
    (tmp_path / "a.csv").write_text("question,answer\nWhy?,18.0\nHow?,2.0\n", encoding="utf-8")
    assert {row["answer"] for row in rows_of("file", path=str(tmp_path / "a.csv"), num_eval=0).train} == {"18", "2"}


def test_rows_to_evaluate_on_come_from_a_path_a_split_or_a_share(tmp_path):
    def numbers(rows):
        return sorted(int(row["question"]) for row in rows)

    def put(name, numbers):
        return write(tmp_path / name, [{"question": str(n), "answer": "1"} for n in numbers])

    put("data/train.jsonl", range(10)), put("data/test.jsonl", range(10, 13)), put("data/dev.jsonl", range(20, 24))
    folder, other = str(tmp_path / "data"), put("other.jsonl", range(30, 32))
    for options, train, held_out in (
        ({}, range(10), range(10, 13)),
        ({"eval_split": "validation"}, range(10), range(20, 24)),
        ({"eval_path": other}, range(10), range(30, 32)),
        ({"eval_path": folder, "path": other}, range(30, 32), range(10, 13)),
        ({"split": "validation", "eval_split": "test"}, range(20, 24), range(10, 13)),
        ({"split": "train"}, range(10), ()),
    ):
        rows = rows_of("file", **{"path": folder, **options})
        assert (numbers(rows.train), numbers(rows.eval)) == ([*train], [*held_out]), options
    rows = rows_of("file", path=folder, split="train", eval_share=0.3)
    assert len(rows.eval) == 3
    assert numbers(rows.train + rows.eval) == [*range(10)]
    assert len(rows_of("file", path=other, prompts_per_step=0).eval) == 2
    put("only/test.jsonl", range(3))
    assert numbers(rows_of("file", path=str(tmp_path / "only"), prompts_per_step=0).eval) == [0, 1, 2]
    with pytest.raises(RecipeError, match=r"task\.name=file: it has rows to evaluate on only"):
        rows_of("file", path=str(tmp_path / "only"))


def test_rows_become_a_table_whatever_their_columns_hold(tmp_path):
    """The trainer keeps rows as a table: columns of several kinds would end it."""
    import datasets

    rows = [
        {"question": "a", "answer": "1", "meta": {"x": 1}, "id": 1, "tags": ["t"], "completions": "none"},
        {"question": "b", "answer": "2", "meta": {"x": "one"}, "id": "two", "tags": []},
        {"question": "c", "answer": "3", "big": 2**70, "share": 1},
        {"question": "d", "answer": "4", "share": 0.5},
    ]
    made = rows_of("file", path=write(tmp_path / "a.jsonl", rows), num_eval=0)
    table = {row["question"]: row for row in datasets.Dataset.from_list(made.train)}
    assert (table["a"]["id"], table["b"]["id"], table["c"]["id"]) == ("1", "two", None)
    assert json.loads(table["b"]["meta"]) == {"x": "one"}
    assert (table["a"]["tags"], table["c"]["big"]) == (["t"], str(2**70))
    assert (table["c"]["share"], table["d"]["share"]) == (1, 0.5)
    assert "completions" not in table["a"]
    assert made.notes[1:] == (
        "columns left out, since the trainer passes arguments of these names: completions",
        "columns with values of several kinds became text: meta, id, big",
    )


GOOD = {"question": "Why?", "answer": "1"}


@pytest.mark.parametrize(
    ("rows", "options", "reason"),
    [
        (MINE, {"columns": {"prompt": "quest", "answer": "solution"}},
         "has no column 'quest' for the prompt, but problem, solution, level; "
         "set task.columns={answer: solution, prompt: problem}"),
        ([{"query": "Why?", "final_answer": "4"}], {},
         "no column is called like a question; the columns are (query, final_answer); "
         "set task.columns={prompt: query, answer: final_answer}"),
        ([{"question": "Why?", "problem": "P1", "answer": "4"}], {},
         "question and problem could each be the question; the columns are (question, problem, answer); "
         "set task.columns={prompt: question, answer: answer}"),
        ([{"x": "Why?", "y": "4"}], {},
         "no column is called like a question; the columns are (x, y); set task.columns={prompt: ..., answer: ...}"),
        ([{"Question": "Why?", "meta": {"target": 4}}], {"columns": {"question": "Question"}},
         "no column is called like an answer; the columns are (Question, meta, meta.target); "
         "set task.columns={question: Question, answer: meta.target}"),
        ([GOOD, {"question": " ", "answer": "4"}], {}, "row 2 has an empty 'question'; write a question into it"),
        ([GOOD, {"answer": "4"}], {}, "row 2 has an empty 'question'"),
        ([GOOD, {"question": 5, "answer": "4"}], {}, "row 2 has a value of the type int in 'question'; a que"),
        ([GOOD, {"question": "How?", "answer": None}], {}, "row 2 has no gold in 'answer' (None); write one"),
        ([GOOD, {"question": "How?", "answer": float("nan")}], {}, "row 2 has no gold in 'answer' (nan)"),
        ([GOOD, {"question": "How?", "answer": "So ####"}], {}, "row 2 has no gold in 'answer' ('So ####')"),
        ([GOOD, {"question": "How?"}], {}, "row 2 has no gold in 'answer' (None)"),
        ([{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "answer": "1"}], {},
         "row 1 has messages in 'prompt' that do not end with the user's; leave the reply out"),
        ([{"prompt": [{"role": "user"}], "answer": "1"}], {}, "row 1 has a value of the type list in"),
        ([{"prompt": "a", "answer": "1"}, {"prompt": [{"role": "user", "content": "a"}], "answer": "1"}], {},
         "row 2 is a text and others are chat messages; give all one form"),
    ],
)  # fmt: skip
def test_what_a_file_lacks_is_one_line_with_a_proposal(tmp_path, rows, options, reason):
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(RecipeError) as caught:
        rows_of("file", path=path, **options)
    assert str(caught.value).startswith(f"task.path={path}: {reason}")
    assert "\n" not in str(caught.value)


def test_other_mistakes_name_their_key(tmp_path):
    path, other = write(tmp_path / "a.jsonl", [GOOD]), write(tmp_path / "b.jsonl", [{"question": "Why?"}])
    for options, reason in (
        ({}, "task.path: missing; file needs it, so set it"),
        (
            {"path": path, "split": "tests"},
            f"task.split=tests: task.path={path} has no such split; known: train",
        ),
        (
            {"path": path, "eval_path": other},
            f"task.eval_path={other}: has no column 'answer' for the answer, but quest",
        ),
        ({"path": path, "eval_path": path}, "task.max_overlap=0.05: 1 of 1 questions to evaluate on also stand in"),
    ):
        with pytest.raises(RecipeError) as caught:
            rows_of("file", **options)
        assert str(caught.value).startswith(reason)


def test_a_task_without_golds_is_for_a_reward_of_ones_own(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": "Write a haiku.", "prompt": "x"}])
    rows = rows_of("file", path=path, columns={"question": "question", "answer": None}, num_eval=0, request="Now.")
    assert columns_of(rows.train) == [{"question": "Write a haiku.", "answer": None}]
    assert rows.notes == ("columns left out, since their names mean what the prompt is made of: prompt",)
    chat = rows_of("file", path=path, columns={"question": "question", "answer": None}, request="Now.", template="chat")
    assert chat.train[0]["prompt"][0]["content"] == "Write a haiku. Now."
