"""Reading data sets: their files by hand, and what is wrong with them in one line."""

import json

import pytest

from rl_posttrain.errors import HubError, RecipeError
from rl_posttrain.tasks.sources import load_splits

ROWS = [{"question": "Wie groß?", "answer": "1", "n": 5}, {"question": "Why, then?", "answer": "2", "n": None}]
TEXT = {
    "lines.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n\n" for row in ROWS),
    "list.jsonl": json.dumps(ROWS, ensure_ascii=False),
    "list.json": " \n" + json.dumps(ROWS, indent=2),
    "lines.json": "".join(json.dumps(row) + "\n" for row in ROWS),
    "named.json": json.dumps({"version": "1", "data": ROWS}, indent=2),
    "byte_order_mark.jsonl": "\ufeff" + "\n".join(json.dumps(row) for row in ROWS),
}


def read(path, split="train", **options):
    return list(load_splits(str(path), **options)[split])


@pytest.mark.parametrize("name", TEXT)
def test_json_of_every_shape(tmp_path, name):
    (tmp_path / name).write_text(TEXT[name], encoding="utf-8")
    assert read(tmp_path / name) == ROWS


def test_parquet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    nested = [{"prompt": [{"role": "user", "content": "Why?"}], "reward_model": {"ground_truth": "3"}}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(nested), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == nested


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("question,answer\nWhy?,18\nHow?,-4\n", [18, -4]),
        ("question,answer\nWhy?,18.0\nHow?,0.10\n", [18.0, 0.1]),
        ("question,answer\nWhy?,18.0\nHow?,\n", [18.0, None]),
        ("question,answer\nWhy?,007\nHow?,8\n", ["007", "8"]),  # no number: digits would be lost
        ("question,answer\nWhy?,0.12345678901234567890\nHow?,1\n", ["0.12345678901234567890", "1"]),
        ("question,answer\nWhy?,nan\nHow?,NA\n", ["nan", "NA"]),
        ('question,answer\r\n"Why,\nthen?","1,000"\r\nHow?,2\r\n', ["1,000", "2"]),
        ("\ufeffquestion,answer\nWhy?,1/2\nHow?\n", ["1/2", ""]),
    ],
)
def test_csv_gives_numbers_only_where_no_digit_is_lost(tmp_path, text, values):
    (tmp_path / "a.csv").write_bytes(text.encode())
    found = [row["answer"] for row in read(tmp_path / "a.csv")]
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


def test_folders_are_searched_for_splits(tmp_path):
    def put(name, *numbers):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"n": number}) + "\n" for number in numbers), encoding="utf-8")

    def splits(name, **options):
        found = load_splits(str(tmp_path / name), **options)
        return {split: [row["n"] for row in rows] for split, rows in found.items()}

    put("clone/data/train-00001-of-00002.jsonl", 3), put("clone/data/train-00000-of-00002.jsonl", 1, 2)
    put("clone/data/test-00000-of-00001.jsonl", 4), put("clone/data/val.jsonl", 5)
    (tmp_path / "clone" / "README.md").write_text("# a data set", encoding="utf-8")
    assert splits("clone") == {"train": [1, 2, 3], "test": [4], "validation": [5]}
    put("one/deep.json", 1), put("one/dataset_infos.json", 9)
    assert splits("one") == {"train": [1]}
    put("two/train.jsonl", 1), put("two/train.json", 1), put("two/socratic/train.jsonl", 2)
    assert splits("two") == {"train": [1]}  # two forms of the same
    assert splits("two", subset="socratic") == {"train": [2]}
    assert splits("two", hub_subset="socratic") == {"train": [1]}


def test_a_folder_of_save_to_disk(tmp_path):
    import datasets

    parts = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:1])}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "both"))
    parts["test"].save_to_disk(str(tmp_path / "one"))
    assert read(tmp_path / "both") == ROWS
    assert read(tmp_path / "both", "test") == read(tmp_path / "one") == ROWS[:1]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b"", "a.jsonl has no rows; write some into it"),
        ("a.csv", b"", "a.csv has no rows"),
        ("a.csv", b"question,answer\n", "a.csv has no rows"),
        ("a.json", b"[]", "a.json has no rows"),
        ("a.jsonl", b'{"a": 1}\n{"a": 2\n', "line 2 of a.jsonl is not JSON (Expecting ',' delimiter at column"),
        ("a.jsonl", b'{"a": 1}\n[1, 2]\n', "line 2 of a.jsonl is a list; write an object with columns"),
        ("a.jsonl", b'"Why?"\n', "line 1 of a.jsonl is a str; write an object"),
        ("a.json", b'["Why?", "How?"]', "a.json is no list of objects; write one, such as"),
        ("a.json", b'{\n"a": {"b": 1}\n}', "a.json is no list of objects"),
        ("a.json", b'[{"a": 1},]', "a.json is not JSON ("),
        ("a.jsonl", '{"a": "é"}\n'.encode("latin-1"), "a.jsonl is not UTF-8 (invalid continuation byte); save it as"),
        ("a.csv", "question,answer\né,1\n".encode("latin-1"), "a.csv is not UTF-8 ("),
        ("a.csv", b"What is 3 + 4?,7\nWhat is 1 + 1?,2\n", "the first line of a.csv names no columns ('7'); write a"),
        ("a.csv", b"question,question\nWhy?,2\n", "the first line of a.csv names no columns ('question')"),
        ("a.csv", b"question,answer\nWhy, then?,2\n", "line 2 of a.csv has 3 values for 2 columns; put texts with"),
        ("a.parquet", b"nothing of the kind", "a.parquet is no parquet file ("),
        ("a.xlsx", b"PK", "not of a known kind; give a file that ends in .jsonl, .parquet, .json, .csv"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        read(path)
    assert str(caught.value).startswith(f"task.path={path}: {reason}")
    assert "\n" not in str(caught.value)


def test_places_without_data_are_one_line(tmp_path, offline):
    (tmp_path / "empty").mkdir()
    for path, reason in (
        (tmp_path / "empty", "no .jsonl, .parquet, .json, .csv files there; put train.jsonl and test.jsonl into it"),
        (tmp_path / "none.jsonl", "no such file or folder; correct it, or name a data set on the hub"),
        ("none", "no such file or folder; "),
        ("./some/folder", "no such file or folder; "),
    ):
        with pytest.raises(RecipeError) as caught:
            load_splits(str(path), key="task.eval_path")
        assert str(caught.value).startswith(f"task.eval_path={path}: {reason}")
    with pytest.raises(HubError, match=r"task\.path=nobody/none: no such file or folder, and the hub did not give it"):
        load_splits("nobody/none")


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch):
    """A port of this machine where nobody listens stands for the hub: no retries of half a minute."""
    import time

    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(HubError, match=r"it cannot be reached: ConnectError\); check the name and the network"):
        load_splits("nobody/none")
    assert time.monotonic() - started < 15
