import json

import pytest

from rl_posttrain.errors import RecipeError
from rl_posttrain.tasks.gsm8k import gsm8k


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def problem(name, gold):
    return {"question": f"How many {name}? ", "answer": f"Count: <<1+1=2>>2\n#### {gold}"}


TRAIN = [problem(f"train {i}", i) for i in range(20)]
TEST = [problem(f"test {i}", f"1,{i:03}") for i in range(6)]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "data" / "train.jsonl", TRAIN)
    write(tmp_path / "data" / "test.jsonl", TEST)
    return str(tmp_path / "data")


def test_folder_of_jsonl(folder):
    rows = gsm8k(seed=0, path=folder)
    assert sorted((row["question"], row["answer"]) for row in rows.train) == sorted(
        (f"How many train {i}?", str(i)) for i in range(20)
    )
    assert {row["question"]: row["answer"] for row in rows.eval} == {
        f"How many test {i}?": f"1,{i:03}" for i in range(6)
    }


def test_folder_of_parquet_in_main(tmp_path):
    import datasets

    for split, rows in (("train", TRAIN), ("test", TEST)):
        path = tmp_path / "clone" / "main" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(rows).to_parquet(str(path))
    rows = gsm8k(seed=0, num_train=5, path=str(tmp_path / "clone"))
    assert (len(rows.train), len(rows.eval)) == (5, 6)
    assert rows.train[0]["question"].endswith("?")


def test_single_file_holds_eval_out(tmp_path):
    path = write(tmp_path / "all.jsonl", TRAIN + TRAIN[:5])  # some questions twice
    rows = gsm8k(seed=0, num_eval=6, path=path)
    held_out = {row["question"] for row in rows.eval}
    assert len(rows.eval) == 6
    assert not held_out & {row["question"] for row in rows.train}
    assert held_out | {row["question"] for row in rows.train} == {
        row["question"] for row in gsm8k(seed=0, num_eval=0, path=path).train
    }


def test_questions_of_the_test_split_are_left_out_of_train(tmp_path):
    write(tmp_path / "data" / "train.jsonl", [*TRAIN, {**TEST[0], "question": "  How many  test 0?"}])
    write(tmp_path / "data" / "test.jsonl", TEST)
    assert len(gsm8k(seed=0, path=str(tmp_path / "data")).train) == 20


def test_rows_follow_the_seed_and_eval_ignores_num_train(folder):
    few = gsm8k(seed=0, num_train=4, num_eval=3, path=folder)
    assert few == gsm8k(seed=0, num_train=4, num_eval=3, path=folder)
    assert few.eval == gsm8k(seed=0, num_train=20, num_eval=3, path=folder).eval
    assert few.train != gsm8k(seed=1, num_train=4, num_eval=3, path=folder).train


def test_options_and_files_that_do_not_fit_are_refused(folder, tmp_path):
    other_columns = write(tmp_path / "other.jsonl", [{"question": "Why?", "solution": "#### 1"}])
    no_gold = write(tmp_path / "no_gold.jsonl", [problem("good", 1), {"question": "Why?", "answer": "Because."}])
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"question": "Why?", "answer"\n', encoding="utf-8")
    empty_folder = tmp_path / "empty"
    empty_folder.mkdir()
    (tmp_path / "rows.csv").write_text("question,answer\n", encoding="utf-8")
    for options, message in [
        ({"path": folder, "num_train": 21}, r"task\.num_train=21: .* has 20 rows"),
        ({"path": folder, "num_train": 0}, r"task\.num_train=0: "),
        ({"path": folder, "num_eval": 7}, r"task\.num_eval=7: .* has 6 rows"),
        ({"path": f"{folder}/train.jsonl"}, r"task\.num_eval=null: .*single file"),
        ({"path": other_columns, "num_eval": 0}, r"task\.path=.*other\.jsonl: has no column answer in train"),
        ({"path": no_gold, "num_eval": 0}, r"task\.path=.*no_gold\.jsonl: no '####' .* 'Why\?'"),
        ({"path": str(broken), "num_eval": 0}, r"task\.path=.*broken\.jsonl: loading failed"),
        ({"path": str(empty_folder)}, r"task\.path=.*empty: no train\* and test\* files"),
        ({"path": str(tmp_path / "rows.csv")}, r"task\.path=.*rows\.csv: not of a known kind"),
        ({"path": str(tmp_path / "missing.jsonl")}, r"task\.path=.*missing\.jsonl: no such file"),
        ({"path": "nobody/no-such-data-set"}, r"task\.path=nobody/no-such-data-set: loading failed"),
    ]:
        with pytest.raises(RecipeError, match=message):
            gsm8k(**{"seed": 0, **options})
