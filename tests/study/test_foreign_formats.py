"""Logs of other programs, format by format, each as its library writes it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from rl_posttrain.errors import RunError
from rl_posttrain.runs.reward_names import markdown_table
from rl_posttrain.study.histories import read_runs

SAMPLES = Path(__file__).parent / "foreign_samples"  # made by foreign_samples/make_wandb.py, wandb 0.31.0


def read_one(path, **options):
    (run,) = read_runs([path], **options).runs
    return run


def column(run, key):
    return [None if math.isnan(value) else round(float(value), 6) for value in run.columns[key]]


def write_events(folder, rewards, *, start=1, tag="train/reward", suffix="", purge_step=None):
    with SummaryWriter(folder, filename_suffix=suffix, purge_step=purge_step) as writer:
        for step, reward in enumerate(rewards, start):
            writer.add_scalar(tag, reward, step, walltime=1_700_000_000 + 10 * step)
            writer.add_scalar("train/loss", 0.5, step, walltime=1_700_000_000 + 10 * step)
    return Path(folder)


def rename_last(folder, begun):
    """Event files are ordered by the second in their names, and a test writes several in one."""
    newest = max(folder.glob("*tfevents*"), key=lambda file: file.stat().st_mtime_ns)
    return newest.rename(folder / f"events.out.tfevents.{begun}.host.1.0")


def test_a_tensorboard_folder_as_tensorboard_itself_reads_it(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = write_events(tmp_path / "adamw-seed1", [0.1, 0.2, math.nan, 0.4])
    with SummaryWriter(folder, filename_suffix=".eval") as writer:
        writer.add_scalar("eval/reward", 0.75, 4)
        writer.add_text("args", "lr: 1e-5" * 1000)
        writer.add_scalar("kl", 0.25, 2, new_style=True)  # a tensor, as TensorFlow 2 writes it
    run = read_one(folder)
    assert (run.name, run.variant, run.seed) == ("adamw-seed1", "adamw", 1)
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    expected = {event.step: event.value for event in accumulator.Scalars("train/reward")}
    assert run.columns["step"].tolist() == list(expected)
    np.testing.assert_array_equal(run.columns["reward"], list(expected.values()))
    assert column(run, "non_finite") == [0, 0, 1, 0]
    assert column(run, "seconds")[:3] == [0, 10, 20]
    assert column(run, "loss") == [0.5] * 4
    assert column(run, "eval/reward") == [None, None, None, 0.75]
    assert column(run, "kl") == [None, 0.25, None, None]


def test_a_resumed_tensorboard_run(tmp_path):
    folder = write_events(tmp_path / "adamw", [0.1, 0.2, 0.3, 0.4, 0.5])
    rename_last(folder, 1_700_000_100)
    write_events(folder, [0.8, 0.9], start=3)
    rename_last(folder, 1_700_000_200)
    collection = read_runs([folder])
    assert column(collection.runs[0], "step") == [1, 2, 3, 4]  # of the old steps 4 and 5 nothing counts
    assert column(collection.runs[0], "reward") == [0.1, 0.2, 0.8, 0.9]
    assert any("3 values were logged again" in notice for notice in collection.notices)


def test_purge_step_takes_back_steps_that_are_not_logged_again(tmp_path):
    folder = write_events(tmp_path / "adamw", [0.1, 0.2, 0.3, 0.4])
    rename_last(folder, 1_700_000_100)
    with SummaryWriter(folder, purge_step=3) as writer:
        writer.add_scalar("train/reward", 0.9, 10)
    rename_last(folder, 1_700_000_200)
    run = read_one(folder)
    assert dict(zip(column(run, "step"), column(run, "reward"), strict=True)) == {1: 0.1, 2: 0.2, 10: 0.9}


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_event_file_is_read_up_to_the_damage(tmp_path, damage):
    folder = write_events(tmp_path / "adamw", [0.1, 0.2, 0.3, 0.4])
    (file,) = folder.iterdir()
    content = bytearray(file.read_bytes())
    if damage == "cut":
        del content[-80:]  # the last loss, and a part of the last reward
    else:
        content[-60] ^= 1  # in the last reward
    file.write_bytes(content)
    collection = read_runs([folder])
    assert column(collection.runs[0], "reward") == [0.1, 0.2, 0.3]
    assert any("damaged or cut short" in notice for notice in collection.notices)


def test_transformers_dated_event_folders_are_one_run(tmp_path):
    dated = tmp_path / "grpo-seed2" / "runs"
    first = write_events(dated / "Nov30_23-00-00_host", [0.1, 0.2, 0.3])
    rename_last(first, 1_700_000_100)
    second = write_events(dated / "Dec01_01-00-00_host", [0.9], start=3)
    rename_last(second, 1_700_000_200)
    run = read_one(tmp_path / "grpo-seed2")
    assert (run.variant, run.seed, column(run, "reward")) == ("grpo", 2, [0.1, 0.2, 0.9])
    assert read_one(first).name == "grpo-seed2"
    assert [run.name for run in read_runs([tmp_path]).runs] == ["grpo-seed2"]


def test_cleanrl_several_episodes_may_end_at_a_step(tmp_path):
    for seed in (1, 2):
        folder = tmp_path / f"CartPole-v1__ppo__{seed}__170000000{seed}"
        with SummaryWriter(folder) as writer:
            for step, episodic_return in ((100, 10.0), (100, 20.0), (200, 40.0)):
                writer.add_scalar("charts/episodic_return", episodic_return, step)
    collection = read_runs([tmp_path])
    assert list(collection.variants) == ["CartPole-v1__ppo"]
    assert [run.seed for run in collection.runs] == [1, 2]
    assert [column(run, "reward") for run in collection.runs] == [[15, 40]] * 2


def tensorboard_csv(folder):
    """What TensorBoard's page saves: its own plugin makes it from an event folder."""
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.scalar.scalars_plugin import ScalarsPlugin
    from werkzeug.test import Client

    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(folder))
    plugin = ScalarsPlugin(TBContext(data_provider=provider))
    answer = Client(plugin.get_plugin_apps()["/scalars"]).get("/scalars?run=.&tag=train/reward&format=csv")
    assert answer.status_code == 200, answer.data
    return answer.get_data(as_text=True)


@pytest.mark.parametrize(
    "name",
    [
        "run-adamw-seed0-tag-train_reward.csv",
        "run-.-tag-train_reward.csv",
        "adamw-seed0_train_reward.csv",
        "adamw-seed0.csv",
        "train_reward.csv",
    ],
)
def test_tensorboards_csv_export(tmp_path, name):
    write_events(tmp_path / "events", [0.1, 0.2, 0.3])
    path = tmp_path / "adamw-seed0" / name
    path.parent.mkdir()
    path.write_text(tensorboard_csv(tmp_path / "events"))
    assert path.read_text().startswith("Wall time,Step,Value\n1700000010.0,1,0.1")
    collection = read_runs([path])
    (run,) = collection.runs
    assert (run.name, run.variant, run.seed) == ("adamw-seed0", "adamw", 0)
    assert (column(run, "reward"), column(run, "seconds")) == ([0.1, 0.2, 0.3], [0, 10, 20])
    assert any("taken as the reward" in notice for notice in collection.notices) == (name == "adamw-seed0.csv")


def test_tensorboards_csvs_of_one_run_are_joined(tmp_path):
    text = "Wall time,Step,Value\n1700000010.0,1,{}\n1700000020.0,2,{}\n"
    for seed in (0, 1):
        (tmp_path / f"run-mine-seed{seed}-tag-train_reward.csv").write_text(text.format(0.1, 0.2))
        (tmp_path / f"run-mine-seed{seed}-tag-train_loss.csv").write_text(text.format(3, 4))
    runs = read_runs([tmp_path]).runs
    assert [run.name for run in runs] == ["mine-seed0", "mine-seed1"]
    assert all((column(run, "reward"), column(run, "loss")) == ([0.1, 0.2], [3, 4]) for run in runs)


def wandb_csv(metric, values, names=("adamw-seed0", "adamw-seed1", "mine-seed0", "mine-seed1")):
    """As W&B's page exports a chart: quoted, a column for each run with its lowest and highest, empty cells."""
    head = [f'"{name} - {metric}{end}"' for name in names for end in ("", "__MIN", "__MAX")]
    lines = [",".join(['"Step"', *head])]
    for step, row in enumerate(values, 1):
        cells = [f'"{value}"' if value != "" else '""' for value in row for _ in range(3)]
        lines.append(",".join([f'"{step}"', *cells]))
    return "\n".join(lines) + "\n"


def test_wandbs_wide_csv_export(tmp_path):
    values = [[0.1, 0.2, 0.5, 0.6], [0.2, "", 0.6, "NaN"], ["", 0.4, 0.7, 0.8]]
    (tmp_path / "reward.csv").write_text(wandb_csv("train/reward", values))
    (tmp_path / "length.csv").write_text(wandb_csv("train/completions/mean_length", [[10, 11, 12, 13]]))
    collection = read_runs([tmp_path / "reward.csv", tmp_path / "length.csv"])
    assert {name: [run.seed for run in runs] for name, runs in collection.variants.items()} == {
        "adamw": [0, 1],
        "mine": [0, 1],
    }
    assert [run.points("reward")[1].tolist() for run in collection.runs] == [
        [0.1, 0.2],
        [0.2, 0.4],
        [0.5, 0.6, 0.7],
        [0.6, 0.8],
    ]
    assert column(collection.runs[3], "non_finite") == [0, 1, 0]
    assert [run.points("completion_length")[1].tolist() for run in collection.runs] == [[10], [11], [12], [13]]


def test_wandb_exports_with_other_values_under_the_same_names_are_other_runs(tmp_path):
    for name, level in (("adams", 0.9), ("adamw", 0.1)):
        (tmp_path / f"{name}.csv").write_text(wandb_csv("reward", [[level], [level]], names=["seed0"]))
    runs = read_runs([tmp_path]).runs
    assert [(run.variant, run.seed, run.columns["reward"][0]) for run in runs] == [("adams", 0, 0.9), ("adamw", 0, 0.1)]


def test_wandb_exports_means_of_long_runs_and_of_groups(tmp_path):
    text = wandb_csv("reward", [[0.5], [0.5]], names=["Group: adamw"]).replace('"0.5"\n', '"0.75"\n')
    (tmp_path / "reward.csv").write_text(text)
    notices = " ".join(read_runs([tmp_path / "reward.csv"]).notices)
    assert "means over several logged values" in notices
    assert "mean over a group of runs" in notices


def test_wandbs_offline_runs(tmp_path):
    collection = read_runs([SAMPLES])
    assert [(run.variant, run.seed) for run in collection.runs] == [("adamw", 0), ("adamw", 1)]
    first, second = collection.runs
    assert column(first, "step") == [1, 2, 3, 4, 5]
    assert column(first, "reward") == [0.1, 0.2, None, 0.4, 0.5]
    assert column(second, "reward") == [0.11, 0.21, None, 0.41, 0.51]
    assert column(first, "loss") == [0.5, 0.5, 0.5, None, 0.5]
    assert column(first, "non_finite") == [0, 0, 1, 1, 0]
    assert column(first, "nested/entropy") == [1.5] * 5
    assert column(first, "eval/reward") == [None, None, None, None, 0.5]
    assert 0 < first.columns["seconds"][0] <= first.columns["seconds"][-1] < 10
    assert collection.notices == []
    (file,) = (SAMPLES / "offline-run-20261127_112919-sample0").glob("*.wandb")
    content = file.read_bytes()
    cut = tmp_path / "run-x.wandb"
    cut.write_bytes(content[:-900])
    collection = read_runs([cut])
    kept = [value for value in column(collection.runs[0], "reward") if value is not None]
    assert kept == [0.1, 0.2, 0.4, 0.5][: len(kept)]
    assert len(kept) >= 2
    assert any("damaged or cut short" in notice for notice in collection.notices)
    assert any("recorded no end" in notice for notice in collection.notices)
    cut.write_bytes(b"no such thing")
    with pytest.raises(RunError, match="not an offline run of W&B"):
        read_runs([cut])


# As these programs' loggers write a line: verl 0.9.1 (FileLogger), prime-rl (FileMonitor), SkyRL 0.3, OpenRLHF 0.11.
LINES = {
    "verl": '{{"step":{step},"data":{{"critic/score/mean":{reward},"training/global_step":{step}}}}}',
    "prime-rl": '{{"step": {step}, "time": 1700000000.5, "reward/all/mean": {reward}, "reward/all/max": 1.0}}',
    "SkyRL": '{{"trainer/global_step": {step}, "reward/avg_raw_reward": {reward}, "reward/avg_pass_at_8": 1.0}}',
    "OpenRLHF": '{{"train/global_step": {step}, "train/reward": {reward}, "train/return": 0.0}}',
    "nanochat": '{{"step": {step}, "lrm": 0.5}}\n{{"step": {step}, "reward": {reward}, "sequence_length": 9.0}}',
}


@pytest.mark.parametrize("program", LINES)
def test_json_lines_of(tmp_path, program):
    rewards = [0.25, "null" if program == "verl" else "NaN", 0.75]
    path = tmp_path / "adamw-s3.jsonl"
    path.write_text("".join(LINES[program].format(step=s, reward=r) + "\n" for s, r in enumerate(rewards, 1)) + '{"st')
    run = read_one(path)
    assert (run.variant, run.seed) == ("adamw", 3)
    assert (column(run, "step"), column(run, "reward")) == ([1, 2, 3], [0.25, None, 0.75])
    assert column(run, "non_finite") == [0, 1, 0]


def test_a_log_with_the_usual_name_is_called_after_its_folder(tmp_path):
    for seed in (0, 1):
        folder = tmp_path / f"adamw-seed{seed}"
        folder.mkdir()
        (folder / "metrics.jsonl").write_text('{"step": 1, "reward": 0.5}\n')
    assert [run.name for run in read_runs([tmp_path]).runs] == ["adamw-seed0", "adamw-seed1"]
    assert read_one(folder / "metrics.jsonl").name == "adamw-seed1"


@pytest.mark.parametrize(
    "rewards",
    [
        {"reward": 0.5},
        {"objective/rlhf_reward": 0.5, "objective/scores": 0.75, "objective/kl": 1.0},
        {"rewards/mean": 0.5, "rewards/std": 0.1},
        {"env/reward_mean": 0.5, "env/reward_std": 0.1},
        {"reward": 0.5, "eval_reward": 0.9},
        {"eval_reward": 0.5},
    ],
)
def test_trainer_states_of_all_versions_of_trl(tmp_path, rewards):
    from transformers import TrainerState

    state = TrainerState(max_steps=2, global_step=2, log_history=[{"step": step, **rewards} for step in (1, 2)])
    (tmp_path / "checkpoint-2").mkdir()
    state.save_to_json(str(tmp_path / "checkpoint-2" / "trainer_state.json"))
    assert column(read_one(tmp_path), "reward") == [0.5, 0.5]


def write_csv(path, text):
    path.write_text(text)
    return path


def test_reward_and_step_columns_that_the_user_names(tmp_path, run_main):
    path = write_csv(tmp_path / "a.csv", "tick,phase,my/score,reward\n10,1,0.5,0\n20,2,0.75,0\n")
    run = read_one(path, reward_column="my/score", step_column="tick")
    assert (column(run, "step"), column(run, "reward")) == ([10, 20], [0.5, 0.75])
    status, stdout, _ = run_main("curves", path, "--reward-column", "my/score", "--step-column", "phase")
    assert status == 0
    assert "a          2/2   0.625" in stdout  # the mean of both rows
    status, _, stderr = run_main("curves", path, "--reward-column", "my/scor", "--step-column", "phase")
    assert status == 2
    assert stderr.count("\n") == 1
    assert "--reward-column=my/scor" in stderr
    assert "my/score" in stderr


def test_where_several_columns_fit_the_notice_names_them(tmp_path):
    paths = [
        write_csv(tmp_path / "a-seed0.csv", "step,critic/score/mean,critic/rewards/mean\n1,0.5,0.25\n"),
        write_csv(tmp_path / "b-seed0.csv", "step,global_step,reward\n1,100,0.5\n"),
    ]
    notices = "\n".join(read_runs(paths).notices)
    assert "critic/score/mean; they have critic/rewards/mean, too (--reward-column)" in notices
    assert "rewards of different names are compared: critic/score/mean, reward" in notices
    assert "b-seed0: steps are those of step; global_step counts otherwise (--step-column takes it)" in notices


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["adamw-s0", "adamw_s1"], {"adamw": [0, 1]}),
        (["adamw_0", "adamw_1", "mine_0", "mine_1"], {"adamw": [0, 1], "mine": [0, 1]}),
        (["adamw-seed0-lr1e-5", "adamw-seed1-lr1e-5"], {"adamw-lr1e-5": [0, 1]}),
        (["adamw_0", "mine_0"], {"adamw_0": [None], "mine_0": [None]}),
        (["lr_1e-5", "lr_1e-6"], {"lr_1e-5": [None], "lr_1e-6": [None]}),
        (["step_100", "step_200"], {"step_100": [None], "step_200": [None]}),
        (["a-v2", "a-v3"], {"a-v2": [None], "a-v3": [None]}),
        (["qwen2.5-7b", "qwen2.5-3b"], {"qwen2.5-7b": [None], "qwen2.5-3b": [None]}),
        (["net_64", "net_128"], {"net_64": [None], "net_128": [None]}),
    ],
)
def test_seeds_of_several_files(tmp_path, names, expected):
    collection = read_runs([write_csv(tmp_path / f"{name}.csv", "step,reward\n1,0.5\n") for name in names])
    assert {name: [run.seed for run in runs] for name, runs in collection.variants.items()} == expected
    notices = "\n".join(collection.notices)
    assert ("no seed was found in" in notices and "looked for seed0" in notices) == (None in expected[min(expected)])
    assert ("is taken as the seed" in notices) == (names[1] == "adamw_1")


def test_group_says_what_is_variant_and_what_is_seed(tmp_path, run_main):
    for name in ("x3-lr1", "x4-lr1", "x3-lr2", "other"):
        write_csv(tmp_path / f"{name}.csv", "step,reward\n1,0.5\n")
    collection = read_runs([tmp_path], group=r"x(?P<seed>\d+)-(?P<variant>.+)")
    assert {name: sorted(run.seed for run in runs) for name, runs in collection.variants.items()} == {
        "lr1": [3, 4],
        "lr2": [3],
    }
    assert [reason.partition(": ")[2] for reason in collection.left_out] == [
        "--group finds nothing in its name 'other', nor in its path"
    ]
    (tmp_path / "seed7").mkdir()
    deep = write_csv(tmp_path / "seed7" / "any.csv", "step,reward\n1,0.5\n")
    assert read_one(deep, group=r"(?P<variant>[^/]+)/seed(?P<seed>\d+)").seed == 7
    for wrong, reason in (("(", "no regular expression"), ("x", "it needs a group (?P<variant>...)")):
        status, _, stderr = run_main("curves", deep, "--group", wrong)
        assert status == 2
        assert reason in stderr


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_steps_logged_again_and_out_of_order(tmp_path, kind):
    def read(rows):
        path = tmp_path / f"a.{kind}"
        if kind == "csv":
            path.write_text("step,reward\n" + "".join(f"{step},{reward}\n" for step, reward in rows))
        else:
            path.write_text("".join(json.dumps({"step": step, "reward": reward}) + "\n" for step, reward in rows))
        run = read_one(path)
        return dict(zip(column(run, "step"), column(run, "reward"), strict=True))

    assert read([(3, 0.3), (1, 0.1), (2, 0.2)]) == {1: 0.1, 2: 0.2, 3: 0.3}
    assert read([(1, 0.1), (2, 0.2), (2, 0.9), (3, 0.3)]) == {1: 0.1, 2: 0.9, 3: 0.3}
    # Resumed at step 2, and killed again before it came to step 4.
    assert read([(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4), (2, 0.8), (3, 0.9)]) == {1: 0.1, 2: 0.8, 3: 0.9}


def test_the_documentation_has_the_names_of_the_reward():
    page = (Path(__file__).parents[2] / "docs" / "foreign_runs.md").read_text()
    assert markdown_table() in page, "python -m rl_posttrain.runs.reward_names prints what should be there"


def test_an_event_file_without_one_whole_record_is_called_damaged(tmp_path):
    (tmp_path / "adams-seed0").mkdir()
    (tmp_path / "adams-seed0" / "events.out.tfevents.1.host").write_bytes(b"\x18" + bytes(400))
    with pytest.raises(RunError, match=r"nothing in it could be read: events\S+ is damaged or cut short"):
        read_runs([tmp_path])
