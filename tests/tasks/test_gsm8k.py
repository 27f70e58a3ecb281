import json
import random

import pytest
from data_sets import rows_of, write

from rl_posttrain.errors import HubError, RecipeError

pytestmark = pytest.mark.usefixtures("offline")


def problem(name, gold):
    return {"question": f"How many {name}? ", "answer": f"Count: <<1+1=2>>2\n#### {gold}"}


TRAIN = [problem(f"train {i}", i) for i in range(20)]
TEST = [problem(f"test {i}", f"1,{i:03}") for i in range(6)]


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "data" / "train.jsonl", TRAIN)
    write(tmp_path / "data" / "test.jsonl", TEST)
    return str(tmp_path / "data")


def test_folder_of_jsonl(folder):
    rows = rows_of("gsm8k", path=folder)
    assert sorted((row["question"], row["answer"]) for row in rows.train) == sorted(
        (f"How many train {i}?", str(i)) for i in range(20)
    )
    assert [(row["question"], row["answer"]) for row in rows.eval] == [
        (f"How many test {i}?", f"1,{i:03}") for i in range(6)
    ]
    assert rows.notes == ()


def test_the_draw_is_the_one_of_earlier_versions(folder):
    """Rows of recipes must not change: drawn by seeds of these names from the files' rows."""
    rows = rows_of("gsm8k", path=folder, num_train=5, num_eval=3, seed=7)
    train = random.Random("gsm8k/train/7").sample(TRAIN, 5)
    held_out = random.Random("gsm8k/eval/7").sample(TEST, 3)
    assert [row["question"] for row in rows.train] == [row["question"].strip() for row in train]
    assert [row["question"] for row in rows.eval] == [row["question"].strip() for row in held_out]
    assert rows.train[0]["prompt"].endswith(f"\n\nUser: {train[0]['question'].strip()}\nAssistant:")


def test_folder_of_parquet_in_main(tmp_path):
    for split, rows in (("train", TRAIN), ("test", TEST)):
        write(tmp_path / "clone" / "main" / f"{split}-00000-of-00001.parquet", rows)
    rows = rows_of("gsm8k", num_train=5, path=str(tmp_path / "clone"))
    assert (len(rows.train), len(rows.eval)) == (5, 6)


def test_single_file_holds_eval_out(tmp_path):
    path = write(tmp_path / "all.jsonl", TRAIN + TRAIN[:5])  # some questions twice
    rows = rows_of("gsm8k", num_eval=6, path=path)
    held_out = {row["question"] for row in rows.eval}
    assert len(rows.eval) == 6
    assert not held_out & {row["question"] for row in rows.train}
    assert held_out | {row["question"] for row in rows.train} == {row["question"].strip() for row in TRAIN}


def test_questions_of_the_test_split_are_left_out_of_train(tmp_path):
    write(tmp_path / "data" / "train.jsonl", [*TRAIN, {**TEST[0], "question": "  How many  test 0?"}])
    write(tmp_path / "data" / "test.jsonl", TEST)
    rows = rows_of("gsm8k", path=str(tmp_path / "data"), max_overlap=0.2)
    assert len(rows.train) == 20
    assert rows.notes[0].startswith("1 of 6 questions to evaluate on also stand in the training rows")


def test_options_and_files_that_do_not_fit_are_refused(folder, tmp_path):
    other_columns = write(tmp_path / "other.jsonl", [{"question": "Why?", "solution": "#### 1"}])
    no_gold = write(tmp_path / "no_gold.jsonl", [problem("good", 1), {"question": "Why?", "answer": "Because."}])
    for options, message in [
        ({"path": folder, "num_train": 21}, r"task\.num_train=21: .* has 20 rows"),
        ({"path": folder, "num_eval": 7}, r"task\.num_eval=7: .* has 6 rows"),
        ({"path": other_columns}, r"task\.path=.*other\.jsonl: has the columns question, solution, where .* answer"),
        ({"path": no_gold}, r"task\.path=.*no_gold\.jsonl: no '####' .* 'Why\?'"),
    ]:
        with pytest.raises(RecipeError, match=message):
            rows_of("gsm8k", **options)


def test_without_a_network_the_line_names_the_local_way():
    with pytest.raises(HubError) as caught:
        rows_of("gsm8k")
    text = str(caught.value)
    assert text.startswith(
        "task.path=openai/gsm8k: no such file or folder, and the hub did not give it (HF_HUB_OFFLINE is set"
    )
    assert text.endswith("download it elsewhere and set task.path to the file or folder")
    assert "\n" not in text


def test_a_data_set_that_was_loaded_before_comes_from_the_cache(folder, tmp_path):
    """The cache of `datasets` as it stands after a load from the hub, made of local files."""
    import datasets

    files = {split: f"{folder}/{split}.jsonl" for split in ("train", "test")}
    datasets.load_dataset("json", data_files=files)
    (made,) = (tmp_path / "cache" / "json").glob("*/0.0.0/*/dataset_info.json")
    cached = tmp_path / "cache" / "openai___gsm8k" / "main" / "0.0.0" / made.parent.name
    cached.mkdir(parents=True)
    for file in made.parent.iterdir():
        content = file.read_bytes()
        if file == made:
            names = {"dataset_name": "gsm8k", "config_name": "main", "builder_name": "parquet"}
            content = json.dumps(json.loads(content) | names).encode()
        (cached / file.name.replace("json-", "gsm8k-")).write_bytes(content)
    rows = rows_of("gsm8k")
    assert (len(rows.train), len(rows.eval)) == (20, 6)
    assert rows.eval[5] == rows_of("gsm8k", path=folder).eval[5]
