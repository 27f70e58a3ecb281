"""Files, paths and templates that cannot be used: one line each, and never a traceback."""

import os

import pytest
from data_sets import rows_of, write

from rl_posttrain.errors import RecipeError

GOOD = '{"question": "b", "answer": "2"}\n'


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.jsonl", '{"question": "a", "answer": ' + "9" * 5000 + "}\n", "line 1 of a.jsonl is not JSON .Exceeds the"),
        ("a.jsonl", GOOD + '{"x": ' + "[" * 100_000 + "]" * 100_000 + "}\n", "line 2 .* not JSON .maximum recursion"),
        ("a.jsonl", GOOD + '{"question": "\\ud800", "answer": "1"}\n', "line 2 of a.jsonl has half of a surrogate"),
        ("a.json", '[{"question": "\\ud800", "answer": "1"}]', "a.json has half of a surrogate"),
        ("a.csv", "question;answer\na;1\n", "its columns between semicolons; save it with commas"),
        ("a.csv", "question\tanswer\na\t1\n", "its columns between tabs"),
        ("a.csv", ",question,answer\n0,a,1\n", "column 1 of a.csv has no name"),
        ("a.csv", 'question,answer\n"a,1\nb,2\n', "a.csv is no CSV .unexpected end"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=reason) as error:
        rows_of("file", path=str(tmp_path / name), num_eval=0)
    assert "\n" not in str(error.value)


def test_whole_characters_in_two_halves_are_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question": "\\ud83d\\ude00", "answer": "1"}\n', encoding="utf-8")
    assert rows_of("file", path=str(tmp_path / "a.jsonl")).train[0]["question"] == "\U0001f600"


@pytest.mark.parametrize("path", ["a" * 5000, "~nobody_of_this_name/x.jsonl"])
def test_a_path_that_cannot_be_is_one_line(path, monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    with pytest.raises(RecipeError, match=r"task\.path=.*: no path of a file"):
        rows_of("file", path=path)


def test_a_damaged_folder_of_save_to_disk_is_one_line(tmp_path):
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(RecipeError, match=r"task\.path=.*no whole folder of save_to_disk"):
        rows_of("file", path=str(tmp_path))


def test_a_csv_of_a_spreadsheet(tmp_path):
    text = f"question, answer,n,big\na,1,1e99999999999999999999,{'9' * 5000}\n,,,\nb,2,3,4\n,,,\n"
    (tmp_path / "a.CSV").write_text(text, encoding="utf-8")
    rows = rows_of("file", path=str(tmp_path / "a.CSV")).train
    assert sorted((row["question"], row["answer"], row["big"][:3]) for row in rows) == [
        ("a", "1", "999"),
        ("b", "2", "4"),
    ]


def test_a_byte_order_mark_of_a_template_is_not_in_the_prompt(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": "Why?", "answer": "1"}])
    for name, text in (("t.txt", "{question}"), ("t.jinja", "{{ question }}")):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert rows_of("file", path=path, template=str(tmp_path / name)).train[0]["prompt"] == "Why?"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("t.jinja", "{% if question == 'x' %}y{% endif %}", "makes an empty prompt of 'Why"),
        ("\0.txt", None, "cannot be read"),
    ],
)
def test_a_template_that_cannot_be_used(tmp_path, name, text, reason):
    path = write(tmp_path / "a.jsonl", [{"question": "Why?", "answer": "1"}])
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(RecipeError, match=reason):
        rows_of("file", path=path, template=str(tmp_path / name))


def test_a_question_needs_a_column(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": "Why?", "answer": "1"}])
    with pytest.raises(
        RecipeError, match=r"task\.columns gives the prompt no column; set task\.columns=\{prompt: question"
    ):
        rows_of("file", path=path, columns={"prompt": None})


def test_nothing_left_to_train_on_names_what_took_it(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": "Why?", "answer": "1"}] * 9)
    for keys in ({"num_eval": 2}, {"eval_share": 0.2}):
        (key,) = keys
        with pytest.raises(RecipeError, match=rf"task\.{key}=.*no row is left to train on"):
            rows_of("file", path=path, **keys)


def test_order_puts_nan_last_and_needs_a_name(tmp_path):
    rows = [{"question": f"q{i}", "answer": "1", "n": n} for i, n in enumerate([float("nan"), 3.0, float("nan"), 1.0])]
    path = write(tmp_path / "a.parquet", rows)
    assert [row["n"] for row in rows_of("file", path=path, order_by="-n").train[:2]] == [3.0, 1.0]
    with pytest.raises(RecipeError, match=r"task\.order_by=-: names no column"):
        rows_of("file", path=path, order_by="-")
    made = rows_of("file", path=path, filter={"difficulty": {"min": 2, "column": "n"}})
    assert "1 of 4 training rows stay (2 have no n)" in made.notes[-1]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pipe.jsonl", "a pipe, a socket or a device, and no file; give a file or a folder"),
        ("a.jsonl.gz", "a packed file; unpack it, and name what was in it"),
    ],
)
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path, name, reason):
    path = tmp_path / name
    os.mkfifo(path) if name.startswith("pipe") else path.write_bytes(b"\x1f\x8b")
    with pytest.raises(RecipeError, match=f"task.path={path}: {reason}"):
        rows_of("file", path=str(path))
    os.mkfifo(tmp_path / "pipe.txt")
    good = write(tmp_path / "good.jsonl", [{"question": f"q{number}", "answer": "1"} for number in range(4)])
    for key in ("template", "system"):
        with pytest.raises(RecipeError, match=rf"task\.{key}=.*: a folder, a pipe or a device, and no file"):
            rows_of("file", path=good, **{key: str(tmp_path / "pipe.txt")})


def test_too_few_rows_say_what_was_left_out(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": "Why?", "answer": "1"}] * 9)
    with pytest.raises(RecipeError, match="of 9, 2 are held out and 7 repeat a question that is; lower it"):
        rows_of("file", path=path, num_eval=2)
    rows = [{"question": "Why?", "answer": "1"}] * 5 + [
        {"question": f"q{number}", "answer": "1"} for number in range(3)
    ]
    path = write(tmp_path / "b.jsonl", rows)
    eval_path = write(tmp_path / "eval.jsonl", [{"question": "Why?", "answer": "1"}])
    with pytest.raises(RecipeError, match=r"has 3 rows for it \(1 of 1 questions .*; 5 training rows are left out\)"):
        rows_of("file", path=path, eval_path=eval_path, num_train=4, max_overlap=1.0)
