"""Whole runs whose completions come from servers: with each backend, with LoRA, ahead, and through deaths."""

import signal
from pathlib import Path

import pytest
import yaml
from conftest import fork_command, run_command, wait_until
from served import TOKEN

from rl_posttrain.machine.process import free_port
from rl_posttrain.runs.directory import RunDirectory

pytestmark = [pytest.mark.usefixtures("token"), pytest.mark.long]
pytest_plugins = ["served"]

# Tokens do not hang on who draws beside whom, so that runs can be compared.
SAME = ("run.deterministic=true", "algorithm.num_steps=4", "rollout.weight_transfer=gloo")


def arguments(servers, tiny_recipe, folder: Path, name: str, *overrides: str) -> list[str | Path]:
    recipe = yaml.safe_load(tiny_recipe.read_text())
    recipe["run"] |= {"name": name, "output_dir": str(folder)}
    recipe["rollout"] |= {"engine": "vllm_server", "servers": [server.address for server in servers]}
    recipe["distributed"] = {"engine": "none"}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return ["train", path, *overrides]


def train(servers, tiny_recipe, folder, *overrides, name="served", processes=1, **variables):
    whole = arguments(servers, tiny_recipe, folder, name, *overrides)
    done = run_command(*whole, processes=processes, **variables)
    return RunDirectory(folder / name), done


def killing(folder: Path, group: str) -> list[str]:
    """Overrides that put in a reward which kills a server.

    Args:
        group: code that gives the group of processes, or 0 or False where it is not to be killed.
    """
    (folder / "killing.py").write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from groups_of_processes import kill_group\n"
        "def digit_share(completions, trainer_state=None, **kwargs):\n"
        f"    if group := {group}:\n"
        "        kill_group(group)\n"
        "    return [sum(c.isdigit() for c in text) / max(1, len(text)) for text in completions]\n"
    )
    return [f"rewards.0.fn={folder / 'killing.py'}:digit_share"]


def without_costs(run: RunDirectory) -> list[dict]:
    """Its rows without what a machine decides, and without the number of servers."""
    costs = ("seconds", "time/", "peak_memory_bytes", "servers_in_use")
    return [{key: row[key] for key in row if not key.startswith(costs)} for row in run.metrics()]


@pytest.mark.parametrize(
    ("processes", "overrides"),
    [
        (1, ["model.lora={rank: 4}", "rollout.weight_transfer=gloo"]),
        (2, ["distributed.engine=deepspeed", "distributed.zero_stage=2", "model.lora={rank: 4}"]),
        (2, ["distributed.engine=deepspeed", "distributed.zero_stage=3", "rollout.weight_transfer=gloo"]),
        (2, ["distributed.engine=fsdp2", "rollout.weight_transfer=gloo"]),
    ],
    ids=["lora", "lora-zero2", "zero3", "fsdp2"],
)
def test_a_run_on_two_servers(servers, tiny_recipe, tmp_path, processes, overrides):
    run, done = train(servers, tiny_recipe, tmp_path, *overrides, processes=processes)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = run.metrics()
    assert [row["servers_in_use"] for row in rows] == [2.0] * 3
    assert [row["checked_weights_share"] for row in rows] == [1.0] * 3
    assert all(row["sampling_logprob_difference"] < 0.15 for row in rows)
    for path in run.path.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path


def test_a_deterministic_run_is_the_same_on_one_server_on_two_and_when_one_of_them_is_killed(
    servers, starts, tiny_recipe, tmp_path
):
    first, one = train(servers[:1], tiny_recipe, tmp_path, *SAME, name="one")
    assert one.returncode == 0, one.stderr[-3000:]
    victim = starts(free_port())
    overrides = killing(tmp_path, f"trainer_state.global_step == 1 and {victim.process.pid}")
    second, two = train([servers[0], victim], tiny_recipe, tmp_path, *SAME, *overrides, name="two")
    assert two.returncode == 0, two.stderr[-3000:]
    assert [row["servers_in_use"] for row in second.metrics()] == [2.0, 2.0, 1.0, 1.0]
    assert f"{victim.address} is left out until the next sync: it cannot be reached" in two.stdout
    wait_until(victim.is_gone)
    assert without_costs(first) == without_costs(second)


def test_a_server_is_killed_while_completions_are_drawn_ahead(servers, starts, tiny_recipe, tmp_path):
    """The reward of a step is called while the thread draws the next one's completions."""
    options = (*SAME, "rollout.max_staleness=1")
    first, one = train(servers[:1], tiny_recipe, tmp_path, *options, name="one")
    assert one.returncode == 0, one.stderr[-3000:]
    victim = starts(free_port())
    overrides = killing(tmp_path, f"trainer_state.global_step == 1 and {victim.process.pid}")
    second, two = train([servers[0], victim], tiny_recipe, tmp_path, *options, *overrides, name="two")
    assert two.returncode == 0, two.stderr[-3000:]
    assert [row["staleness"] for row in second.metrics()] == [0, 1, 1, 1]
    assert f"{victim.address} is left out until the next sync: " in two.stdout
    assert without_costs(first) == without_costs(second)


def test_a_run_ahead_goes_on_after_sigkill(servers, tiny_recipe, tmp_path):
    """Its server is not free before the lease is over, but for the run itself."""
    options = (*SAME, "rollout.max_staleness=1", "checkpoint.every_steps=1", "checkpoint.keep=9", "task.num_train=8")
    whole, done = train(servers, tiny_recipe, tmp_path, *options, name="whole")
    assert done.returncode == 0, done.stderr[-3000:]
    killed = RunDirectory(tmp_path / "killed")
    fork = fork_command(*arguments(servers, tiny_recipe, tmp_path, "killed", *options))
    wait_until(lambda: fork.poll() is not None or (killed.checkpoints_path / "checkpoint-2").is_dir())
    fork.kill()
    fork.wait()
    assert len(killed.metrics()) < 4
    resumed, done = train(servers, tiny_recipe, tmp_path, *options, "--resume", name="killed")
    assert done.returncode == 0, done.stderr[-3000:]
    assert without_costs(resumed) == without_costs(whole)


@pytest.mark.parametrize("weight_transfer", ["files", "gloo"])
def test_a_run_whose_only_server_is_killed_can_be_resumed(starts, tiny_recipe, tmp_path, weight_transfer):
    server = starts(free_port())
    overrides = killing(tmp_path, "trainer_state.global_step == 2 and int(os.environ.get('KILLED_GROUP', '0'))")
    overrides += ["algorithm.num_steps=4", "checkpoint.every_steps=1", "checkpoint.keep=4"]
    overrides += [f"rollout.weight_transfer={weight_transfer}"]
    run, done = train([server], tiny_recipe, tmp_path, *overrides, KILLED_GROUP=str(server.process.pid))
    assert done.returncode == 2
    said = f"rollout.servers: no server can be used ({server.address}: it cannot be reached"
    assert done.stderr.count("\n") == 1
    assert all(part in done.stderr for part in (said, "--resume", "is kept")), done.stderr
    wait_until(server.is_gone)
    starts(server.port)
    run, done = train([server], tiny_recipe, tmp_path, *overrides, "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    assert [row["step"] for row in run.metrics()] == [1, 2, 3, 4]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_and_all_of_its_processes(starts, number):
    starts(free_port()).end(number)
