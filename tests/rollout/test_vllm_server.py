"""vLLM servers as a rollout engine: two real ones for all tests.

The tests stand in the order in which the servers suffer: the second one is stopped for a while, and killed by the last.
"""

import contextlib
import resource
import signal
import subprocess
import time

import pytest
import torch
from conftest import slowness, wait_until
from served import TOKEN
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rl_posttrain.errors import EngineError, EngineLost, WeightSyncError
from rl_posttrain.machine.process import free_port
from rl_posttrain.machine.tools import SERVER_TOKEN
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.rollout import server_client, weight_group
from rl_posttrain.rollout.engine import Sampling
from rl_posttrain.rollout.served_run import ServedRun
from rl_posttrain.rollout.vllm import VLLMEngine
from rl_posttrain.rollout.vllm_server import VLLMServers
from rl_posttrain.rollout.weight_files import write_files
from rl_posttrain.training.weight_check import WeightCheck

pytestmark = pytest.mark.usefixtures("token")
pytest_plugins = ["served"]
SAMPLING = Sampling(max_tokens=8)
both_ways = pytest.mark.parametrize("weight_transfer", ["files", "gloo"])


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
    for weight_transfer in ("files", "gloo"):
        perturb(policy)
        engine = connect(servers[0], weight_transfer=weight_transfer)
        for each in (colocated, engine):
            each.load_weights(policy.named_parameters())
        for seed, prompt in enumerate(prompts[::3]):
            for sampling in (SAMPLING, Sampling(max_tokens=8, temperature=0.7, top_p=0.8)):
                [ours], [theirs] = (each.generate([prompt], [seed], sampling) for each in (engine, colocated))
                assert ours == theirs
    colocated.close()


@both_ways
def test_every_server_gets_the_weights_and_is_read_back(
    servers, connect, policy, prompts, tiny_recipe, monkeypatch, weight_transfer
):
    monkeypatch.setattr(weight_group, "_BYTES_A_BUCKET", 10_000)  # many, and a matrix that is larger than one
    engine, check = connect(*servers, weight_transfer=weight_transfer), weight_check(tiny_recipe)
    for step in range(1, 4):
        perturb(policy)
        check.sync(engine, policy.named_parameters(), step)
    assert check.share == 1.0
    drawn = engine.generate(prompts, range(12), SAMPLING)
    assert [completion.prompt_ids for completion in drawn] == prompts
    assert engine.metrics == {"servers_in_use": 2.0}
    # A seed decides a completion, whichever server draws it.
    by_each = []
    for server in engine._servers:
        monkeypatch.setattr(engine, "_in_use", lambda server=server: [server])
        by_each.append([engine.generate([prompts[place]], [place], SAMPLING) for place in (0, 5, 11)])
    assert by_each[0] == by_each[1]


def test_a_server_that_holds_older_weights_is_named(servers, connect, policy, tmp_path, tiny_recipe, monkeypatch):
    """It says that it has the step's weights; what it multiplies by says otherwise."""
    engine, check = connect(*servers), weight_check(tiny_recipe)
    check.sync(engine, policy.named_parameters(), 1)
    stale = {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}
    perturb(policy)
    give = engine._path.give

    def give_old_ones_to_the_second(*arguments):
        failed = give(*arguments)
        [old] = write_files(tmp_path, stale.items(), engine._version, torch.bfloat16)
        engine._loop.run(engine._load(engine._servers[1], [str(old)]))
        old.unlink()
        return failed

    monkeypatch.setattr(engine._path, "give", give_old_ones_to_the_second)
    with pytest.raises(WeightSyncError, match=rf"stale or wrong weights: .* on {servers[1].address}, differs"):
        check.sync(engine, policy.named_parameters(), 2)


@both_ways
def test_weights_of_another_step_are_not_taken(servers, connect, policy, monkeypatch, weight_transfer):
    engine = connect(servers[0], weight_transfer=weight_transfer)
    engine.load_weights(policy.named_parameters())
    give = engine._path.give
    monkeypatch.setattr(
        engine._path, "give", lambda reached, walk, version, load: give(reached, walk, "an-older-step", load)
    )
    with pytest.raises(EngineLost, match=r"the weights of version an-older-step"):
        engine.load_weights(policy.named_parameters())


@both_ways
def test_half_of_the_weights_are_never_sampled_from(
    servers, connect, policy, prompts, tiny_recipe, monkeypatch, weight_transfer
):
    """The trainer fails in the middle of a layer, and goes on with others; what it then gives is whole."""
    monkeypatch.setattr(weight_group, "_BYTES_A_BUCKET", 10_000)
    engine, check = connect(servers[0], weight_transfer=weight_transfer), weight_check(tiny_recipe)
    engine.load_weights(policy.named_parameters())

    def half():
        for name, parameter in policy.named_parameters():
            if "1.self_attn.k_proj" in name:
                raise KeyError(name)
            yield name, parameter * 3

    with pytest.raises(KeyError):
        engine.load_weights(half())
    with pytest.raises(EngineLost, match="this step's"):
        engine.generate(prompts[:1], [0], SAMPLING)
    perturb(policy)
    check.sync(engine, policy.named_parameters(), 1)
    engine.generate(prompts[:1], [0], SAMPLING)


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


@both_ways
def test_a_second_run_is_refused_and_the_same_run_takes_over(servers, connect, policy, prompts, weight_transfer):
    first = connect(servers[0], run="first", weight_transfer=weight_transfer)
    first.load_weights(policy.named_parameters())
    with pytest.raises(EngineError, match=rf"{servers[0].address}: it is in use by the run first, for \d+"):
        connect(servers[0], run="second")
    resumed = connect(servers[0], run="first", weight_transfer=weight_transfer)
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
        (
            {"weight_transfer": "gloo", "trainer_address": "192.0.2.1"},
            "this command cannot listen for it .*trainer_add",
        ),
        ({"dtype": "float32"}, "it computes in bfloat16, and model.dtype=float32"),
        ({"max_tokens_per_sequence": 500}, "it takes 128 tokens of prompt and completion, and the recipe needs 500"),
        ({"config": AutoConfig.for_model("llama", vocab_size=77)}, "it has another model: its "),
    ],
)
def test_a_server_that_does_not_fit_the_recipe_is_refused(servers, connect, keys, said):
    with pytest.raises(EngineError, match=f"{servers[0].address}: {said}"):
        connect(servers[0], **keys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="NCCL has a GPU here")
def test_nccl_without_a_gpu_is_refused(servers, connect):
    with pytest.raises(EngineError, match=r"rollout.weight_transfer=nccl: NCCL joins GPUs, and this process has none"):
        connect(servers[0], weight_transfer="nccl")


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


def test_an_address_that_is_not_there_is_named(servers, connect, monkeypatch):
    monkeypatch.setattr(server_client, "_RETRY_AFTER_S", (0.1,))
    nowhere = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(EngineError, match=rf"rollout.servers: {nowhere}: it cannot be reached"):
        connect(servers[0], nowhere)
    connect(servers[0], run="another")  # the first is free again


def test_a_stopped_server_is_left_out_and_comes_back(servers, connect, policy, prompts, tiny_recipe):
    engine = connect(*servers, timeout_s=3.0 * slowness())
    check = weight_check(tiny_recipe)
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


def test_a_server_that_stops_in_the_middle_of_a_transfer(servers, connect, policy, prompts, tiny_recipe, monkeypatch):
    monkeypatch.setattr(weight_group, "_BYTES_A_BUCKET", 10_000)
    engine = connect(*servers, timeout_s=3.0 * slowness(), weight_transfer="gloo")
    check = weight_check(tiny_recipe)
    check.sync(engine, policy.named_parameters(), 1)

    def weights():
        for name, parameter in policy.named_parameters():
            if "1.self_attn.k_proj" in name:
                servers[1].signal(signal.SIGSTOP)
            yield name, parameter

    perturb(policy)
    try:
        check.sync(engine, weights(), 2)
        assert f"{servers[1].address} is left out until the next sync: it " in engine.notes[-1]
        assert " (rollout.server_timeout_s)" in engine.notes[-1]
        engine.generate(prompts, range(12), SAMPLING)
        assert engine.metrics == {"servers_in_use": 1.0}
    finally:
        servers[1].signal(signal.SIGCONT)
    perturb(policy)
    check.sync(engine, policy.named_parameters(), 3)
    assert engine.notes[-1] == f"{servers[1].address} is back, with the weights of this step"


def test_a_server_that_is_killed_in_the_middle_of_a_transfer(
    servers, connect, policy, prompts, tiny_recipe, monkeypatch
):
    """The last test: the second server does not come back."""
    monkeypatch.setattr(weight_group, "_BYTES_A_BUCKET", 10_000)
    engine, check = connect(*servers, weight_transfer="gloo"), weight_check(tiny_recipe)
    check.sync(engine, policy.named_parameters(), 1)

    def weights():
        for name, parameter in policy.named_parameters():
            if "1.self_attn.k_proj" in name:
                servers[1].end(signal.SIGKILL)
            yield name, parameter

    perturb(policy)
    started = time.monotonic()
    check.sync(engine, weights(), 2)
    assert f"{servers[1].address} is left out until the next sync: " in engine.notes[-1]
    assert time.monotonic() - started < 30 * slowness()  # it is not waited for
    drawn = engine.generate(prompts, range(12), SAMPLING)
    assert [completion.prompt_ids for completion in drawn] == prompts
    assert engine.metrics == {"servers_in_use": 1.0}


@pytest.mark.long
@both_ways
def test_a_server_that_was_started_again_is_not_sampled_from_before_a_sync(
    starts, connect, policy, prompts, weight_transfer
):
    """It has weights of chance, and would answer."""
    server = starts(free_port())
    engine = connect(server, weight_transfer=weight_transfer)
    engine.load_weights(policy.named_parameters())
    before = engine.generate(prompts[:1], [0], SAMPLING)
    server.end(signal.SIGKILL)
    starts(server.port)
    with pytest.raises(EngineLost, match="it has lost this step's weights, as after a restart"):
        engine.generate(prompts[:1], [0], SAMPLING)
    engine.load_weights(policy.named_parameters())
    assert engine.notes[-1] == f"{server.address} is back, with the weights of this step"
    assert engine.generate(prompts[:1], [0], SAMPLING) == before
