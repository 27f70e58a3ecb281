"""Runs of other programs: TRL's trainer_state.json, and CSVs as people save them."""

import json
import math
import re

import pytest

from rl_posttrain.errors import RunError
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.runs.series import summarize
from rl_posttrain.study.foreign.files import is_foreign
from rl_posttrain.study.histories import read_runs
from rl_posttrain.study.measures import run_statistics
from rl_posttrain.study.pairs import pairing


def trl_entry(step, reward, **more):
    """What TRL's GRPOTrainer logs for a step (1.16), less what nothing reads."""
    return {
        "loss": 0.0012 * step,
        "grad_norm": 0.5,
        "learning_rate": 1e-06,
        "num_tokens": 1000.0 * step,
        "completions/mean_length": 12.5,
        "completions/min_length": 3.0,
        "completions/clipped_ratio": 0.25,
        "rewards/accuracy_reward/mean": reward,
        "rewards/accuracy_reward/std": 0.4,
        "reward": reward,
        "reward_std": 0.3,
        "frac_reward_zero_std": 0.5,
        "entropy": 1.25,
        "clip_ratio/low_mean": 0.0,
        "sampling/sampling_logp_difference/mean": 0.004,
        "step_time": 3.0,
        "epoch": 0.1 * step,
        "step": step,
        **more,
    }


TRL_END = {"train_runtime": 45.1, "train_samples_per_second": 1.1, "total_flos": 0.0, "train_loss": 0.1, "step": 4}
TRL_HISTORY = [
    trl_entry(1, 0.125, step_time=5.0),
    trl_entry(2, 0.25),
    {"eval_loss": 0.0, "eval_reward": 0.5, "eval_rewards/accuracy_reward/mean": 0.5, "eval_runtime": 2.0, "step": 2},
    trl_entry(3, math.nan, **{"rewards/accuracy_reward/mean": None}),
    trl_entry(4, 0.5, step_time=4.0),
    TRL_END,
]


def write_state(folder, history=TRL_HISTORY, **state):
    """As transformers writes it, NaN included, into a folder; the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "trainer_state.json"
    state = {"best_metric": None, "global_step": 4, "max_steps": 4, "is_world_process_zero": True} | state
    path.write_text(json.dumps(state | {"log_history": history}, indent=2) + "\n")
    return path


def read_one(path):
    (run,) = read_runs([path]).runs
    return run


def column(run, key):
    return [None if math.isnan(value) else value for value in run.columns[key]]


def test_a_trainer_state_in_our_names(tmp_path):
    run = read_one(write_state(tmp_path / "adamw-seed3"))
    assert (run.name, run.variant, run.seed, run.finished) == ("adamw-seed3", "adamw", 3, True)
    assert (run.recipe, run.environment, run.num_planned, run.prompts) == ({}, {}, 4, ())
    assert column(run, "step") == [1, 2, 3, 4]  # the totals of the end are no step
    assert column(run, "reward") == [0.125, 0.25, None, 0.5]
    assert column(run, "rewards/accuracy_reward") == [0.125, 0.25, None, 0.5]
    assert column(run, "non_finite") == [0, 0, 1, 0]
    assert column(run, "seconds") == [5, 8, 11, 15]
    assert column(run, "tokens") == [1000, 2000, 3000, 4000]
    assert column(run, "completion_length") == [12.5] * 4
    assert column(run, "truncated_share") == [0.25] * 4
    assert column(run, "frac_zero_variance") == [0.5] * 4
    assert column(run, "lr") == [1e-6] * 4
    assert column(run, "sampling_logprob_difference") == [0.004] * 4
    # The evaluation after step 2 is in the row of step 2.
    assert column(run, "eval/reward") == column(run, "eval/rewards/accuracy_reward") == [None, 0.5, None, None]
    assert "train_runtime" not in run.columns
    assert run.source.rollouts(1) == []


def test_seconds_of_entries_that_stand_for_several_steps(tmp_path):
    # logging_steps=10, as is TRL's default: step_time is the mean of the ten. The evaluation falls between two of them.
    history = [trl_entry(10, 0.0), {"eval_reward": 0.5, "step": 15}, trl_entry(20, 0.5, step_time=4.0)]
    run = read_one(write_state(tmp_path / "adamw", history))
    assert column(run, "step") == [10, 15, 20]
    assert column(run, "seconds") == [30, None, 70]
    assert run_statistics(run, 0.5)["seconds_per_step"] == 3.5
    assert column(run, "non_finite") == [0, 0, 0]  # what the evaluation's row lacks was not asked for


@pytest.mark.parametrize("named", ["file", "folder"])
def test_a_checkpoint_folder(tmp_path, named):
    file = write_state(tmp_path / "grpo-seed1" / "checkpoint-4")
    run = read_one(file if named == "file" else file.parent)
    assert (run.name, run.variant, run.seed) == ("grpo-seed1", "grpo", 1)


def test_of_an_output_folder_the_newest_checkpoint_counts(tmp_path):
    for step in (5, 9, 10, 100):
        write_state(tmp_path / "grpo" / f"checkpoint-{step}", TRL_HISTORY[:1], global_step=step, max_steps=200)
    write_state(tmp_path / "grpo" / "checkpoint-1000-old", TRL_HISTORY)
    (tmp_path / "grpo" / "checkpoint-999").mkdir()  # its state was not written yet
    write_state(tmp_path / "grpo" / "checkpoint-100", [trl_entry(99, 0.75), trl_entry(100, 1.0)], max_steps=100)
    run = read_one(tmp_path / "grpo")
    assert (run.name, run.seed) == ("grpo", None)
    assert column(run, "step") == [99, 100]


def test_the_working_directory_is_an_output_folder_with_a_name(tmp_path, monkeypatch):
    write_state(tmp_path / "grpo" / "checkpoint-4")
    monkeypatch.chdir(tmp_path / "grpo")
    assert read_one(".").name == read_one("checkpoint-4").name == "grpo"
    monkeypatch.chdir(tmp_path / "grpo" / "checkpoint-4")
    assert read_one("trainer_state.json").variant == "grpo"


@pytest.mark.parametrize(
    ("state", "finished"),
    [
        ({"global_step": 4, "max_steps": 8}, False),
        ({"global_step": 4, "max_steps": 4}, True),
        ({"global_step": None, "max_steps": None}, True),  # it is not known
    ],
)
def test_a_run_with_steps_to_come_is_not_finished(tmp_path, state, finished):
    assert read_one(write_state(tmp_path / "grpo", **state)).finished == finished


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b'{"log_history": [{"step": 1, "rew', "not JSON"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "it has no log_history"),
        (b'{"log_history": {"step": 1}}', "it has no log_history"),
        (b'{"log_history": [1, "two", null]}', "it has no log_history"),
        (b'{"log_history": []}', "no finished step yet"),
        (b'{"log_history": [{"step": "1", "reward": 0.5}, {"reward": 0.5}]}', "no finished step yet"),
        (
            b'{"log_history": [{"step": 1, "loss": 0.5, "epoch": 1}]}',
            "none of its columns is known as a reward; set --reward-column to one of: loss, epoch",
        ),
        (b'{"log_history": [{"step": 1, "reward": NaN}]}', "no step has a reward that is finite"),
    ],
)
def test_what_is_no_trainer_state(tmp_path, content, reason):
    path = tmp_path / "trainer_state.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match=f"{re.escape(str(path))}: .*{reason}"):
        read_runs([path])


def test_a_file_that_is_not_there(tmp_path):
    for name in ("nowhere.csv", "nowhere.json"):
        with pytest.raises(RunError, match=rf"{name}: cannot be read \(No such file"):
            read_runs([tmp_path / name])


def write_csv(path, text, **options):
    path.write_text(text, newline="", **options)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "step,reward,lr\n1,0.25,1e-5\n2,0.5,1e-5\n",
        "step,reward,lr\r\n1,0.25,1e-5\r\n2,0.5,1e-5\r\n",
        "Step,train/reward,train/learning_rate\n1,0.25,1e-5\n2,0.5,1e-5",
        '"train/global_step","Reward","learning_rate"\n"1.0","0.25","1e-5"\n"2.0","0.5","1e-5"\n',
        " _step , reward , lr \n 1 , 0.25 , 1e-5\n\n\n 2 , 0.5 , 1e-5 \n",
        "step,reward,lr,note\n2,0.5,1e-5,last\n1,0.25,1e-5,first\n",
        "step,reward,lr\n1,0.25,1e-5,one cell,too many\n2,0.5,1e-5\n",
    ],
    ids=["plain", "windows", "tensorboard", "quoted", "spaces", "not in order", "long line"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_in_our_names(tmp_path, text, encoding):
    run = read_one(write_csv(tmp_path / "adamw-seed1.csv", text, encoding=encoding))
    assert (run.name, run.variant, run.seed, run.finished) == ("adamw-seed1", "adamw", 1, True)
    assert {key: column(run, key) for key in run.columns} == {
        "step": [1, 2],
        "reward": [0.25, 0.5],
        "lr": [1e-5, 1e-5],
        "non_finite": [0, 0],
    }
    assert str(summarize(run.columns)["steps"]) == "2"


def test_cells_that_are_empty_and_numbers_that_are_not_finite(tmp_path):
    # Weights & Biases leaves a cell empty where a step did not log the metric; that is no number that went wrong.
    text = "step,reward,loss,kl\n1,0.25,0.5,\n2,,,\n3,,0.5,\n4,NaN,inf,\n5,0.5,n/a,\n"
    run = read_one(write_csv(tmp_path / "adamw.csv", text))
    assert column(run, "step") == [1, 3, 4, 5]  # of step 2 nothing is known
    assert column(run, "reward") == [0.25, None, None, 0.5]
    assert column(run, "non_finite") == [0, 0, 1, 0]
    assert "kl" not in run.columns


@pytest.mark.parametrize("last", ["3", "3,", "", '"', ",", "3,0.7", "4,0.75,1"])
def test_a_last_line_that_was_cut_short(tmp_path, last):
    path = write_csv(tmp_path / "adamw.csv", f"step,reward,tokens\n1,0.25,10\n2,0.5,20\n{last}")
    expected = {"3,0.7": [0.25, 0.5, 0.7], "4,0.75,1": [0.25, 0.5, 0.75]}.get(last, [0.25, 0.5])
    assert column(read_one(path), "reward") == expected


def unknown(what, *columns):
    return f"none of its columns is known as a {what}; set --{what}-column to one of: {', '.join(columns)}"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no finished step yet"),
        (b"step,loss\n1,0.5\n", unknown("reward", "loss")),
        (b"step,my_score,loss,reward_std\n1,0.5,1,1\n", unknown("reward", "my_score", "reward_std")),
        (b"epoch,reward\n1,0.5\n", unknown("step", "epoch")),
        (b"step;reward\n1;0,5\n", "not a CSV (its columns are divided by semicolons); save it as UTF-8 with commas"),
        (b"1,0.5\n2,0.75\n", unknown("reward", "1", "0.5")),
        (b"step,reward,train/reward\n1,0.5,0.5\n", "several columns could be the reward: reward, train/reward; set"),
        (b"step,reward,reward\n1,0.5,0.75\n", "several columns have one name: reward; rename or remove all but one"),
        (b"\x89PNG\r\n\x1a\n\x00\xff\xd8", "not a CSV ("),
        (
            b"PK\x03\x04\x00\x1b[2J\x07" + b"\x00" * 5000,
            "not a CSV (its first line has zero bytes)",
        ),
        ("step,reward\n1,0.5\n".encode("utf-16"), "not a CSV ("),
        (b'step,reward\n"' + b"x" * 200_000, "not a CSV (field larger than"),
        (b"step,reward\n", "no finished step yet"),
        (b"step,reward\n1,high\n", "no finished step"),
    ],
)
def test_what_is_no_csv_of_a_run(tmp_path, run_main, content, reason):
    path = tmp_path / "adamw.csv"
    path.write_bytes(content)
    status, stdout, stderr = run_main("curves", path)
    assert (status, stdout) == (2, "")
    assert stderr.startswith("rl-posttrain: ")
    assert f"{path}: {reason}" in stderr
    assert stderr.count("\n") == 1
    assert stderr.rstrip("\n").isprintable()
    assert len(stderr) < 1000


@pytest.mark.parametrize(
    ("name", "variant", "seed"),
    [
        ("adamw-seed3", "adamw", 3),
        ("adamw_seed=12", "adamw", 12),
        ("Adam W.Seed-07", "Adam W", 7),
        ("adamw-lr1e-5-seed_0", "adamw-lr1e-5", 0),
        ("adamw-3", "adamw-3", None),
        ("adamw", "adamw", None),
        ("seed5-adamw", "adamw", 5),
        ("adamw-seed1-seed2", "adamw-seed1", 2),
    ],
)
def test_seeds_from_names(tmp_path, name, variant, seed):
    run = read_one(write_csv(tmp_path / f"{name}.csv", "step,reward\n1,0.5\n"))
    assert (run.name, run.variant, run.seed) == (name, variant, seed)


def test_a_seed_alone_goes_by_the_name_of_the_folder_around_it(tmp_path):
    # Else seed0 of two optimizers would be two runs of one variant.
    for name in ("adams", "adamw"):
        write_state(tmp_path / name / "seed0" / "checkpoint-4")
        write_csv(tmp_path / name / "Seed_1.csv", "step,reward\n1,0.5\n")
    paths = [tmp_path / name / file for name in ("adams", "adamw") for file in ("seed0", "Seed_1.csv")]
    assert {variant: [(run.name, run.seed) for run in runs] for variant, runs in read_runs(paths).variants.items()} == {
        "adams": [("adams-seed0", 0), ("adams-Seed_1", 1)],
        "adamw": [("adamw-seed0", 0), ("adamw-Seed_1", 1)],
    }


def test_which_paths_are_read_as_foreign(tmp_path):
    (tmp_path / "empty").mkdir()
    assert not is_foreign(tmp_path / "empty")
    assert not is_foreign(tmp_path / "run.txt")
    assert is_foreign(tmp_path / "RUN.CSV")
    assert read_one(write_csv(tmp_path / "RUN.CSV", "step,reward\n1,0.5\n")).columns["reward"] == [0.5]
    write_state(tmp_path / "grpo" / "checkpoint-1")
    assert is_foreign(tmp_path / "grpo")
    assert read_one(tmp_path / "grpo").source.planned_steps() == 4


def test_ours_beside_runs_of_other_programs(tmp_path):
    for name, seed in (("adams", 0), ("adamw", 0)):
        recipe = f"run: {{seed: {seed}}}\noptimizer: {{name: {name}}}\ntask: {{name: arithmetic}}\n"
        run = RunDirectory.create(tmp_path / f"{name}-run", recipe_yaml=recipe)
        run.append_metrics({"step": 1, "reward": 0.5})
    for name in ("adamw", "sgd"):
        write_csv(tmp_path / f"{name}-seed0.csv", "step,reward\n1,0.25\n")
    write_state(tmp_path / "trl-seed0")
    collection = read_runs([tmp_path])
    # One name is not enough to be another seed of ours.
    assert list(collection.variants) == ["adams", "adamw", "adamw-other-program", "sgd", "trl"]
    assert [run.seed for run in collection.runs] == [0] * 5
    assert len(pairing(collection)) == 2  # what is known of ours


def test_curves_of_a_csv(tmp_path, run_main):
    path = write_csv(tmp_path / "adamw.csv", "step,reward,seconds\n10,0.25,30\n20,0.5,60\n30,0.75,90\n")
    status, stdout, stderr = run_main("curves", path)
    assert (status, stderr) == (0, "")
    assert "* adamw" in stdout
    (line,) = [line for line in stdout.splitlines() if "30/30" in line]
    # Means of the first and last 5 (all 3), no gain, the best, no accuracy, 3 s a step of which each row has 10.
    assert " ".join(line.split()) == "adamw 30/30 0.500 0.500 +0.000 0.500 - 3.0 - finished"


def test_curves_of_several_seeds_end_in_a_verdict(tmp_path, run_main):
    names = [f"{name}-seed{seed}" for name in ("adams", "adamw") for seed in range(3)]
    for index, name in enumerate(names):
        level = 0.8 if index < 3 else 0.3 + 0.01 * index
        write_csv(tmp_path / f"{name}.csv", f"step,reward\n1,0\n2,{level}\n")
    status, stdout, stderr = run_main("curves", *(tmp_path / f"{name}.csv" for name in names))
    assert (status, stderr) == (0, "")
    # Welch: 0.8 less 0.34, with a standard error of 0.01 / sqrt(3) of one side alone, and t(0.975, 2) = 4.303.
    assert "adams is better than adamw: +0.46 (95 % CI +0.435 to +0.485, 3 runs, unpaired, p = " in stdout
    assert "seeds 0, 1, 2 are not paired: seeds are guessed from the names of files" in stdout
