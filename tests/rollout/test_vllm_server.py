"""vLLM servers as a rollout engine: two real ones, started by the script, with a token.

The tests stand in the order in which the servers suffer: the second one is stopped for a while, and killed by the last.
"""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import clean_environment, run_command, slowness, wait_until
from groups_of_processes import kill_group
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rl_posttrain.errors import EngineError, EngineLost, WeightSyncError
from rl_posttrain.machine.tools import SERVER_TOKEN
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.rollout.engine import Sampling
from rl_posttrain.rollout.served_run import ServedRun
from rl_posttrain.rollout.vllm import VLLMEngine
from rl_posttrain.rollout.vllm_server import VLLMServers
from rl_posttrain.rollout.weight_files import write_files
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.training.weight_check import WeightCheck

SCRIPT = Path(__file__).parents[2] / "launch" / "vllm_server.sh"
TOKEN = "a-secret-of-the-tests"
SAMPLING = Sampling(max_tokens=8)


class Served:
    """A server of the tests, in a process group of its own."""

    def __init__(self, model: Path, log: Path, port: int, **variables: str):
        self.address, self.log = f"http://127.0.0.1:{port}", log
        environment = clean_environment(
            PYTHON=sys.executable, MODEL=str(model), PORT=str(port), MAX_TOKENS="128", OMP_NUM_THREADS="1",
            VLLM_CPU_KVCACHE_SPACE="1", **variables,
        )  # fmt: skip
        environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
        with log.open("w") as out:
            self.process = subprocess.Popen(
                ["bash", str(SCRIPT)], env=environment, stdout=out, stderr=out, start_new_session=True
            )

    def wait(self) -> "Served":
        wait_until(lambda: self.process.poll() is not None or self._answers())
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        return self

    def _answers(self) -> bool:
        time.sleep(0.1)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(self.address[-5:])), 1) as asked:
            asked.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            return b" 200 " in asked.recv(100)
        return False

    def signal(self, number: int) -> None:
        if number == signal.SIGKILL:
            kill_group(self.process.pid)
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def is_gone(self) -> bool:
        self.process.poll()  # the system keeps a process that nobody has asked for its end
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def servers(tiny_model, tmp_path_factory):
    logs = tmp_path_factory.mktemp("servers")
    started = [Served(tiny_model, logs / f"{number}.log", free_port(), **{SERVER_TOKEN: TOKEN}) for number in range(2)]
    try:
        yield [server.wait() for server in started]
    finally:
        for server in started:
            server.signal(signal.SIGCONT)
            server.signal(signal.SIGTERM)
        for server in started:
            server.process.wait(60 * slowness())
            wait_until(server.is_gone)


@pytest.fixture(autouse=True)
def token(monkeypatch):
    monkeypatch.setenv(SERVER_TOKEN, TOKEN)


@pytest.fixture
def connect(tiny_model, tmp_path):
    """Makes engines on servers, as a trainer does, and closes them."""
    notes, opened = [], []

    def connect(*servers, run="run", **keys) -> VLLMServers:
        served = ServedRun(
            **{
                "run": run,
                "config": AutoConfig.from_pretrained(tiny_model),
                "dtype": "bfloat16",
                "max_tokens_per_sequence": 64,
                "folder": tmp_path,
                "timeout_s": 60.0 * slowness(),
                "lease_s": 60.0 * slowness(),
            }
            | keys
        )
        addresses = [server if isinstance(server, str) else server.address for server in servers]
        opened.append(VLLMServers(addresses, served, notes.append))
        opened[-1].notes = notes
        return opened[-1]

    yield connect
    for engine in opened:
        engine.close()
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.glob("rl_posttrain-*"))


@pytest.fixture
def policy(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def prompts(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    return [tokenizer(f"Q: What is {n} + 3?\nA:")["input_ids"] for n in range(4) for _ in range(3)]


def weight_check(tiny_recipe) -> WeightCheck:
    return WeightCheck(load_recipe(str(tiny_recipe), ["run.name=x"]), list, lambda note: None, ())


def perturb(policy, factor=1.1):
    for parameter in policy.parameters():
        parameter.data.mul_(factor)


def test_server_and_colocated_engine_give_the_same_log_probabilities(servers, connect, policy, prompts, tiny_model):
    """One at a time, so that both form the same batches: the very same tokens and numbers."""
    colocated = VLLMEngine(
        str(tiny_model), dtype="bfloat16", max_tokens_per_sequence=64, max_sequences=8, kv_cache_bytes=1,
        gpu_memory_share=0.2, seed=0, seed_each=True,
    )  # fmt: skip
    engine = connect(servers[0])
    perturb(policy)
    for each in (colocated, engine):
        each.load_weights(policy.named_parameters())
    for seed, prompt in enumerate(prompts[::3]):
        for sampling in (SAMPLING, Sampling(max_tokens=8, temperature=0.7, top_p=0.8)):
            [ours], [theirs] = (each.generate([prompt], [seed], sampling) for each in (engine, colocated))
            assert ours == theirs
    together = {
        name: [completion.logprobs for completion in each.generate(prompts, range(12), SAMPLING)]
        for name, each in (("server", engine), ("colocated", colocated))
    }
    assert len(together["server"]) == 12


def test_every_server_gets_the_weights_and_is_read_back(servers, connect, policy, prompts, tiny_recipe):
    engine, check = connect(*servers), weight_check(tiny_recipe)
    for step in range(1, 4):
        perturb(policy)
        check.sync(engine, policy.named_parameters(), step)
    assert check.share == 1.0
    drawn = engine.generate(prompts, range(12), SAMPLING)
    assert [completion.prompt_ids for completion in drawn] == prompts
    assert engine.metrics == {"servers_in_use": 2.0}
    # A seed decides a completion, whichever server draws it.
    alone = connect(servers[1], run="run")
    alone.load_weights(policy.named_parameters())
    for place in (0, 5, 11):
        [first] = engine_of_one(connect, servers[0], policy).generate([prompts[place]], [place], SAMPLING)
        [second] = engine_of_one(connect, servers[1], policy).generate([prompts[place]], [place], SAMPLING)
        assert first == second


def engine_of_one(connect, server, policy):
    engine = connect(server)
    engine.load_weights(policy.named_parameters())
    return engine


def test_a_server_that_holds_older_weights_is_named(servers, connect, policy, tmp_path, tiny_recipe, monkeypatch):
    """It says that it has the step's weights; what it multiplies by says otherwise."""
    engine, check = connect(*servers), weight_check(tiny_recipe)
    check.sync(engine, policy.named_parameters(), 1)
    stale = {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}
    perturb(policy)
    bring = engine._bring

    async def bring_old_ones_to_the_second(paths):
        await bring(paths)
        [old] = write_files(tmp_path, stale.items(), engine._version, torch.bfloat16)
        second = engine._servers[1]
        await second.call(engine._loop.http, "load", engine._session, engine._version, [str(old)])
        old.unlink()

    monkeypatch.setattr(engine, "_bring", bring_old_ones_to_the_second)
    with pytest.raises(WeightSyncError, match=rf"stale or wrong weights: .* on {servers[1].address}, differs"):
        check.sync(engine, policy.named_parameters(), 2)


def test_a_file_of_another_step_is_not_taken(servers, connect, policy, tmp_path, monkeypatch):
    engine = connect(servers[0])
    engine.load_weights(policy.named_parameters())
    [old] = write_files(tmp_path, policy.named_parameters(), "an-older-step", torch.bfloat16)
    bring = engine._bring
    monkeypatch.setattr(engine, "_bring", lambda paths: bring([str(old)]))
    with pytest.raises(EngineLost, match=r"holds the weights of version an-older-step"):
        engine.load_weights(policy.named_parameters())
    old.unlink()


def test_a_folder_that_does_not_take_the_weights_is_named(servers, connect, policy, tmp_path):
    engine = connect(servers[0])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    walked = []
    weights = ((walked.append(name), (name, parameter))[1] for name, parameter in policy.named_parameters())
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # as on a full disk
    try:
        with pytest.raises(
            EngineError, match=f"rollout.weights_folder={tmp_path}: the weights cannot be written there"
        ):
            engine.load_weights(weights)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert walked == [name for name, _ in policy.named_parameters()]
    engine.load_weights(policy.named_parameters())


def test_a_second_run_is_refused_and_the_same_run_takes_over(servers, connect, policy, prompts):
    first = connect(servers[0], run="first")
    first.load_weights(policy.named_parameters())
    with pytest.raises(EngineError, match=rf"{servers[0].address}: it is in use by the run first, for \d+"):
        connect(servers[0], run="second")
    resumed = connect(servers[0], run="first")
    with pytest.raises(EngineLost, match=r"it has lost this step's weights|it has other weights"):
        first.generate(prompts, range(12), SAMPLING)
    with pytest.raises(EngineLost, match="it is in use by the run first"):
        first.load_weights(policy.named_parameters())
    resumed.load_weights(policy.named_parameters())
    resumed.generate(prompts, range(12), SAMPLING)
    resumed.close()
    connect(servers[0], run="second")


def test_the_lease_of_a_killed_trainer_ends(servers, connect, policy):
    killed = connect(servers[0], run="killed", lease_s=2.0 * slowness())
    killed._loop.close()  # nothing is heard of it any more
    started = time.monotonic()
    with pytest.raises(EngineError, match="it is in use by the run killed"):
        connect(servers[0], run="next")

    def is_free() -> bool:
        with contextlib.suppress(EngineError):
            return connect(servers[0], run="next") is not None
        return False

    wait_until(is_free)
    assert time.monotonic() - started > 0.5


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"dtype": "float32"}, "it computes in bfloat16, and model.dtype=float32"),
        ({"max_tokens_per_sequence": 500}, "it takes 128 tokens of prompt and completion, and the recipe needs 500"),
        ({"config": AutoConfig.for_model("llama", vocab_size=77)}, "it has another model: its "),
    ],
)
def test_a_server_that_does_not_fit_the_recipe_is_refused(servers, connect, keys, said):
    with pytest.raises(EngineError, match=f"{servers[0].address}: {said}"):
        connect(servers[0], **keys)


@pytest.mark.parametrize("said", ["another token", None])
def test_a_wrong_token_is_refused_by_every_endpoint_and_never_printed(servers, connect, monkeypatch, said):
    import httpx

    paths = ["/collective_rpc", "/v1/completions", "/pause", "/update_weights", "/tokenize", "/server_info", "/metrics"]
    headers = {"Authorization": f"Bearer {said}"} if said else {}
    for path in paths:
        assert httpx.post(servers[0].address + path, headers=headers, json={}).status_code == 401, path
    monkeypatch.setenv(SERVER_TOKEN, said) if said else monkeypatch.delenv(SERVER_TOKEN)
    with pytest.raises(EngineError, match="refuses the token of this command") as refused:
        connect(servers[0])
    assert "another token" not in str(refused.value)
    for server in servers:
        assert TOKEN not in server.log.read_text()
        shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
        assert TOKEN not in shown


def test_an_address_that_is_not_there_is_named(servers, connect):
    nowhere = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(EngineError, match=rf"rollout.servers: {nowhere}: it cannot be reached"):
        connect(servers[0], nowhere)
    connect(servers[0], run="another")  # the first is free again


@pytest.mark.long
def test_a_run_with_two_processes_on_two_servers(servers, tiny_recipe, tmp_path):
    run, done = train(servers, tiny_recipe, tmp_path, "distributed.engine=deepspeed", processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = run.metrics()
    assert [row["servers_in_use"] for row in rows] == [2.0] * 3
    assert all(row["sampling_logprob_difference"] < 0.15 for row in rows)
    for path in run.path.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path


def train(servers, tiny_recipe, tmp_path, *overrides, processes=1, **variables):
    recipe = yaml.safe_load(tiny_recipe.read_text())
    recipe["run"] |= {"name": "served", "output_dir": str(tmp_path)}
    recipe["rollout"] |= {"engine": "vllm_server", "servers": [server.address for server in servers]}
    recipe["distributed"] = {"engine": "none"}
    path = tmp_path / "served.yaml"
    path.write_text(yaml.safe_dump(recipe))
    done = run_command("train", path, *overrides, processes=processes, **{SERVER_TOKEN: TOKEN} | variables)
    return RunDirectory(tmp_path / "served"), done


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


def test_a_stopped_server_is_left_out_and_comes_back(servers, connect, policy, prompts, tiny_recipe):
    engine, check = connect(*servers, timeout_s=3.0 * slowness()), weight_check(tiny_recipe)
    check.sync(engine, policy.named_parameters(), 1)
    servers[1].signal(signal.SIGSTOP)
    try:
        drawn = engine.generate(prompts, range(12), SAMPLING)
    finally:
        servers[1].signal(signal.SIGCONT)
    assert [completion.prompt_ids for completion in drawn] == prompts
    assert engine.metrics == {"servers_in_use": 1.0}
    assert f"{servers[1].address} is left out until the next sync: it did not answer" in engine.notes[-1]
    perturb(policy)
    check.sync(engine, policy.named_parameters(), 2)
    assert engine.notes[-1] == f"{servers[1].address} is back, with the weights of this step"
    engine.generate(prompts, range(12), SAMPLING)
    assert engine.metrics == {"servers_in_use": 2.0}


def test_a_run_goes_on_when_one_of_two_servers_is_killed(servers, tiny_recipe, tmp_path):
    """The last test: its second server does not come back."""
    overrides = killing(tmp_path, f"trainer_state.global_step == 1 and {servers[1].process.pid}")
    run, done = train(servers, tiny_recipe, tmp_path, *overrides)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [row["servers_in_use"] for row in run.metrics()] == [2.0, 2.0, 1.0]
    assert f"{servers[1].address} is left out until the next sync: it cannot be reached" in done.stdout
    wait_until(servers[1].is_gone)


@pytest.fixture
def starts(tiny_model, tmp_path):
    """Starts a server on a port, as often as a test likes; all end with the test."""
    started = []

    def start(port: int) -> Served:
        started.append(Served(tiny_model, tmp_path / f"{len(started)}.log", port, **{SERVER_TOKEN: TOKEN}))
        return started[-1].wait()

    yield start
    for server in started:
        server.signal(signal.SIGKILL)
        wait_until(server.is_gone)


def end(server: Served, number: int) -> None:
    server.signal(number)
    server.process.wait(60 * slowness())
    wait_until(server.is_gone)


@pytest.mark.long
def test_a_server_that_was_started_again_is_not_sampled_from_before_a_sync(starts, connect, policy, prompts):
    """It has weights of chance, and would answer."""
    server = starts(free_port())
    engine = connect(server)
    engine.load_weights(policy.named_parameters())
    before = engine.generate(prompts[:1], [0], SAMPLING)
    end(server, signal.SIGKILL)
    starts(int(server.address[-5:]))
    with pytest.raises(EngineLost, match="it has lost this step's weights, as after a restart"):
        engine.generate(prompts[:1], [0], SAMPLING)
    engine.load_weights(policy.named_parameters())
    assert engine.notes[-1] == f"{server.address} is back, with the weights of this step"
    assert engine.generate(prompts[:1], [0], SAMPLING) == before


@pytest.mark.long
def test_a_run_whose_only_server_is_killed_can_be_resumed(starts, tiny_recipe, tmp_path):
    server = starts(free_port())
    overrides = killing(tmp_path, "trainer_state.global_step == 2 and int(os.environ.get('KILLED_GROUP', '0'))")
    overrides += ["algorithm.num_steps=4", "checkpoint.every_steps=1", "checkpoint.keep=4"]
    run, done = train([server], tiny_recipe, tmp_path, *overrides, KILLED_GROUP=str(server.process.pid))
    assert done.returncode == 2
    said = f"rollout.servers: no server can be used ({server.address}: it cannot be reached"
    assert done.stderr.count("\n") == 1
    assert all(part in done.stderr for part in (said, "--resume", "is kept")), done.stderr
    wait_until(server.is_gone)
    starts(int(server.address[-5:]))
    run, done = train([server], tiny_recipe, tmp_path, *overrides, "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    assert [row["step"] for row in run.metrics()] == [1, 2, 3, 4]


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_and_all_of_its_processes(starts, number):
    end(starts(free_port()), number)
