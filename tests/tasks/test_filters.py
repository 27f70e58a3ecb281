"""What a recipe leaves out of a task's rows, and the order in which it trains on them."""

import json

import pytest
from data_sets import rows_of, write

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.resolve import resolve_task
from rl_posttrain.recipe.task_section import TaskSection

ROWS = [
    {"question": "What is 1 + 1?", "answer": "2", "level": "Level 2", "pass_rate": 1.0, "points": 3},
    {"question": "What is 10 + 10?", "answer": "20", "level": "Level 10", "pass_rate": 0.5, "points": 2},
    {"question": "What is 100 + 100?", "answer": "200", "level": "Level 1", "pass_rate": None, "points": 7},
    {"question": "What is 1000 + 1000?", "answer": "2000", "level": "Level 3", "pass_rate": 0.0, "points": 3},
]


@pytest.fixture
def task(tmp_path):
    """Rows of the task `file` with the four rows above to train on, in their order, and with two others to evaluate."""
    path = write(tmp_path / "train.jsonl", ROWS)
    held_out = [{"question": "What is 2 + 2?", "answer": "4"}, {"question": "What is 20 + 2002?", "answer": "2022"}]
    eval_path = write(tmp_path / "eval.jsonl", held_out)

    def task(count_tokens=None, prompts_per_step=1, **keys):
        section = TaskSection(name="file", path=path, eval_path=eval_path, template="qa", **keys)
        return resolve_task(section, seed=0).make_rows(prompts_per_step, count_tokens)

    return task


def answers(rows):
    return [row["answer"] for row in rows]


def characters(prompts):
    return [len(prompt) for prompt in prompts]


def in_file_order(rows):
    return sorted(answers(rows), key=int)


def test_long_prompts_are_left_out_of_train_and_eval(task):
    rows = task(characters, filter={"max_prompt_tokens": len("Q: What is 10 + 10?\nA:")})
    assert in_file_order(rows.train) == ["2", "20"]
    assert answers(rows.eval) == ["4"]
    assert rows.notes[-2:] == (
        "prompts of at most 22 tokens: 1 of 2 eval rows stay",
        "prompts of at most 22 tokens: 2 of 4 training rows stay",
    )
    # Where nothing is trained, the training rows stay as they are.
    rows = task(characters, 0, filter={"max_prompt_tokens": 22, "difficulty": {"min": 2, "column": "none"}})
    assert (len(rows.train), answers(rows.eval)) == (4, ["4"])


@pytest.mark.parametrize(
    ("difficulty", "kept", "said"),
    [
        ({"min": 0.1, "max": 0.9, "column": "pass_rate"}, ["20"],
         "difficulty, pass_rate from 0.1 to 0.9: 1 of 4 training rows stay (1 have no pass_rate)"),
        ({"min": 0.5, "column": "pass_rate"}, ["2", "20"],
         "difficulty, pass_rate from 0.5 to any: 2 of 4 training rows stay (1 have no pass_rate)"),
        ({"max": 0, "column": "pass_rate"}, ["2000"],
         "difficulty, pass_rate from any to 0: 1 of 4 training rows stay (1 have no pass_rate)"),
        ({"min": 2, "max": 3, "column": "level"}, ["2", "2000"],
         "difficulty, level from 2 to 3: 2 of 4 training rows stay"),
    ],
)  # fmt: skip
def test_rows_outside_of_the_bounds_are_left_out_of_train_alone(task, difficulty, kept, said):
    rows = task(filter={"difficulty": difficulty})
    assert in_file_order(rows.train) == kept
    assert answers(rows.eval) == ["4", "2022"]
    assert rows.notes[-1] == said


def test_difficulty_from_an_evaluation_is_the_share_of_right_samples_of_a_prompt(task, tmp_path):
    found = {"2": [True, True], "20": [True, False, None, False], "200": [None]}  # and none of 2000
    samples = [
        {"question": 0, "sample": sample, "prompt": f"Q: {row['question']}\nA:", "right": right, "reward": 0.0}
        for row in ROWS
        for sample, right in enumerate(found.get(row["answer"], []))
    ]
    write(tmp_path / "eval" / "samples.jsonl", samples)
    results = str(tmp_path / "eval")
    rows = task(filter={"difficulty": {"max": 0.9, "results": results}})
    assert [(row["answer"], row["pass_rate"]) for row in rows.train] == [("20", 1 / 3)]
    assert rows.notes[-1] == "difficulty, pass_rate from any to 0.9: 1 of 4 training rows stay (2 have no pass_rate)"
    rows = task(filter={"difficulty": {"min": 0, "results": results}}, order_by="-pass_rate")
    assert answers(rows.train) == ["2", "20"]

    with pytest.raises(RecipeError, match=r"results=.*: it has none of the 4 training prompts; evaluate these"):
        task(filter={"difficulty": {"max": 0.9, "results": results}}, system="Be short.")
    with pytest.raises(RecipeError, match=r"^task\.filter\.difficulty\.results=nowhere: samples\.jsonl cannot be read"):
        task(filter={"difficulty": {"max": 0.9, "results": "nowhere"}})
    (tmp_path / "eval" / "samples.jsonl").write_text('{"prompt": "Q"}\n')
    with pytest.raises(RecipeError, match=r"samples\.jsonl cannot be read there \(a line has no 'right'\)"):
        task(filter={"difficulty": {"max": 0.9, "results": results}})


def test_difficulty_of_prompts_that_are_chat_messages(task, tmp_path):
    prompt = [{"role": "user", "content": "What is 1 + 1?"}]
    write(tmp_path / "eval" / "samples.jsonl", [{"prompt": prompt, "right": True}])
    section = TaskSection(
        name="file", path=str(tmp_path / "train.jsonl"), num_eval=0, template="chat",
        filter={"difficulty": {"min": 1, "results": str(tmp_path / "eval")}},
    )  # fmt: skip
    assert answers(resolve_task(section, seed=0).make_rows(1).train) == ["2"]


@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        ("level", ["200", "2", "2000", "20"]),  # 1, 2, 3, 10: numbers, not letters
        ("-level", ["20", "2000", "2", "200"]),
        ("pass_rate", ["2000", "20", "2", "200"]),  # without a value: last
        ("-pass_rate", ["2", "20", "2000", "200"]),
        ("answer", ["2", "20", "200", "2000"]),
    ],
)
def test_training_rows_come_in_the_order_of_a_column(task, order_by, expected):
    rows = task(order_by=order_by)
    assert answers(rows.train) == expected
    assert answers(rows.eval) == ["4", "2022"]
    assert rows.notes[-1].startswith(f"training rows in the order of {order_by}, from ")


def test_an_order_says_where_it_begins_and_ends_and_a_column_without_values_gives_none(task, tmp_path):
    assert task(order_by="pass_rate").notes[-1].startswith("training rows in the order of pass_rate, from 0.0 to 1.0;")
    write(tmp_path / "train.jsonl", [row | {"pass_rate": None} for row in ROWS])
    with pytest.raises(RecipeError, match=r"^task\.order_by=-pass_rate: no row has a value there; name another column"):
        task(order_by="-pass_rate")


def test_equal_rows_stay_as_they_stood_and_words_come_by_letters(task, tmp_path):
    drawn = answers(task().train)
    by_points = answers(task(order_by="points").train)
    assert by_points == ["20", *(answer for answer in drawn if answer in ("2", "2000")), "200"]
    write(tmp_path / "train.jsonl", [row | {"subject": name} for row, name in zip(ROWS, "bCa1", strict=True)])
    assert answers(task(order_by="subject").train) == ["2000", "20", "200", "2"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"order_by": "levl"}, r"^task\.order_by=levl: the task's rows have no such column; did you mean 'level'\?$"),
        ({"order_by": "zzz"}, r"^task\.order_by=zzz: .* known: answer, level, pass_rate, points, prompt, question$"),
        ({"filter": {"difficulty": {"min": 1, "column": "rate"}}},
         r"^task\.filter\.difficulty\.column=rate: the task's rows have no such column; did you mean 'pass_rate'"),
        ({"filter": {"difficulty": {"column": "level"}}}, r"^task\.filter\.difficulty\.min=null: with max=null"),
        ({"filter": {"difficulty": {"min": 1}}}, r"^task\.filter\.difficulty\.column=null: set either column"),
        ({"filter": {"difficulty": {"min": 1, "column": "level", "results": "x"}}}, r"column=level: set either"),
        ({"filter": {"difficulty": {"min": 0.9, "max": 0.1, "column": "level"}}}, r"min=0\.9: it is above max=0\.1"),
        ({"filter": {"difficulty": {"min": 11, "column": "level"}}},
         r"^task\.filter\.difficulty: it leaves no row \(.*: 0 of 4 training rows stay\); loosen it$"),
        ({"filter": {"max_prompt_tokens": 3}}, r"^task\.filter\.max_prompt_tokens=3: it leaves no row \(.* eval rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line(task, keys, message):
    with pytest.raises(RecipeError, match=message):
        task(characters, **keys)


def test_rows_that_are_too_few_after_a_filter_are_counted(task):
    with pytest.raises(RecipeError, match=r"^algorithm\.prompts_per_step=3: the task has 2 training rows"):
        task(prompts_per_step=3, filter={"difficulty": {"min": 2, "max": 3, "column": "level"}})


def test_filters_stand_in_a_recipe_with_any_task():
    rows = rows_of("arithmetic", num_train=50, num_eval=4, filter={"difficulty": {"max": 9, "column": "answer"}})
    assert 0 < len(rows.train) < 50
    assert all(float(row["answer"]) <= 9 for row in rows.train)
    assert json.dumps(rows.train)


def test_an_evaluation_of_the_training_questions_says_how_difficult_they_are(task, tmp_path, tiny_model, run_main):
    folder = str(tmp_path / "evals" / "tiny")
    status, _, stderr = run_main(
        "eval", tiny_model, "--task", tmp_path / "train.jsonl", "--num-samples", "2", "--out", folder,
        "--engine", "transformers", "--max-new-tokens", "4", "task.template=qa",
    )  # fmt: skip
    assert status == 0, stderr
    rows = task(filter={"difficulty": {"min": 0, "results": folder}})
    assert len(rows.train) == 4
    assert {row["pass_rate"] for row in rows.train} <= {0.0, 0.5, 1.0}


def test_check_counts_tokens_by_the_models_tokenizer_and_shows_what_stays(tiny_recipe, run_main):
    # The tiny model's tokens are characters: "Q: What is 3 + 4?" and a line with "A:" are 20, with one more digit 21.
    options = ["task.filter.max_prompt_tokens=21", "task.digits=2", "task.order_by=answer", "--json"]
    status, stdout, stderr = run_main("check", tiny_recipe, *options)
    assert status == 0, stderr
    shown = json.loads(stdout)["task"]
    notes = "\n".join(shown["notes"])
    assert f"prompts of at most 21 tokens: {shown['num_train']} of 64 training rows stay" in notes
    assert 4 <= shown["num_train"] < 64
    assert shown["prompt_tokens"] <= 21
    assert "training rows in the order of answer, from " in notes
