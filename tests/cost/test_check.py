"""`rl-posttrain check`: sizes and memory by hand, for every bundled recipe, with no network."""

import json
import re
import shutil

import pytest
import yaml

from rl_posttrain.cli import main as cli
from rl_posttrain.cost.check import check_recipe
from rl_posttrain.cost.placed import Where
from rl_posttrain.errors import RecipeError
from rl_posttrain.models import find as models
from rl_posttrain.recipe.files import bundled_recipes
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.views.check import print_check


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No hub, as far as huggingface_hub is concerned, whatever was imported before."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("name", bundled_recipes())
def test_every_bundled_recipe_checks_out_with_no_network(name):
    fewer = ["task.num_train=1024"] if name.startswith("countdown") else []  # 131,072 puzzles take seconds
    result = check_recipe(load_recipe(name, fewer), 1)
    assert result["sizes"]["num_processes"] == 1
    assert (result["task"] is None) == name.startswith("gsm8k")
    assert json.loads(json.dumps(result)) == result
    assert result["memory_bytes"] is not None, result["notes"]
    assert result["memory_bytes"]["total"] == sum(
        value for key, value in result["memory_bytes"].items() if key != "total"
    )


# The tiny model: 128 x 64 tied embedding; in each of 2 layers q 64x64, k and v 64x32, o 64x64, three 64x128 of the MLP
# and two norms of 64; a last norm.
TINY = 128 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64) + 64


def test_parameters_are_counted_once_where_they_are_tied(tiny_model):
    config = models.load_config(str(tiny_model))
    assert sum(p.numel() for p in models.model_without_weights(config).parameters()) == TINY == 82_240
    config.tie_word_embeddings = False
    assert sum(p.numel() for p in models.model_without_weights(config).parameters()) == TINY + 128 * 64


def test_check_refuses_the_rows_that_training_refuses(tiny_recipe, tmp_path):
    rows = [{"question": f"What is {i}?", "answer": str(i)} for i in range(8)]
    for row, message in (
        ({"question": "Why?", "answer": "\\frac{"}, r"task\.max_unreadable_golds=0\.01: 1 of 9 golds cannot be read"),
        ({"question": "a" * 600, "answer": "1"}, r"rollout\.max_new_tokens=8: with the longest prompt of 606 tokens"),
    ):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in [*rows, row]))
        # Wherever the seed puts the row, to train or to evaluate on, and in whichever place.
        with pytest.raises(RecipeError, match=message):
            check_recipe(load_recipe(tiny_recipe, [f"task={{name: file, path: {path}, num_eval: 2}}"]), 1)


def test_optimizer_groups_are_shown_and_what_the_model_refuses_is_an_error(tiny_recipe, capsys):
    overrides = ["optimizer.weight_decay=0.1", "optimizer.lr_by_role={embeddings: 1.0e-4}"]
    result = check_recipe(load_recipe(tiny_recipe, overrides), 1)
    norms, embeddings = 5 * 64, 128 * 64
    assert result["optimizer_groups"] == [
        {"roles": ["matrices"], "num_parameters": TINY - norms - embeddings, "lr": 1e-3, "weight_decay": 0.1},
        {"roles": ["embeddings"], "num_parameters": embeddings, "lr": 1e-4, "weight_decay": 0.1},
        {"roles": ["norms"], "num_parameters": norms, "lr": 1e-3, "weight_decay": 0.0},
    ]
    print_check(result)
    assert "embeddings       8,192  0.0001           0.1" in capsys.readouterr().out
    for override, message in (
        ("optimizer.lr_by_role={biases: 1.0e-4}", "the model trains no parameter of this role, but matrices, embed"),
        ("optimizer={name: galore, lr: 1.0e-3, rank: 64}", "GaLore refuses the model .*64 or less"),
    ):
        with pytest.raises(RecipeError, match=message):
            check_recipe(load_recipe(tiny_recipe, [override, "distributed.zero_stage=0"]), 1)


PPO = ("algorithm.name=ppo", "critic.optimizer.lr=2.0e-4")


def test_the_memory_of_a_critic_by_hand(tiny_recipe, capsys):
    policy = check_recipe(load_recipe(tiny_recipe), 1)["memory_bytes"]
    result = check_recipe(load_recipe(tiny_recipe, PPO), 1)
    memory, size = result["memory_bytes"], TINY + 64
    # bf16 weights and their gradients, fp32 masters, one fp32 value of state each; ZeRO-2 sums gradients in fp32.
    assert {name: memory[f"critic_{name}"] for name in ("weights", "gradients", "masters", "optimizer_state")} == {
        "weights": 2 * size, "gradients": 4 * size, "masters": 4 * size,
        "optimizer_state": pytest.approx(4 * size, abs=8),
    }  # fmt: skip
    assert {name: memory[name] for name in policy if name != "total"} == {
        name: value for name, value in policy.items() if name != "total"
    }
    assert [(group["part"], group["num_parameters"], group["lr"]) for group in result["optimizer_groups"]] == [
        ("policy", TINY, 1e-3), ("critic", size, 2e-4),
    ]  # fmt: skip
    print_check(result)
    assert "critic: matrices, embeddings, norms" in capsys.readouterr().out

    shared = check_recipe(load_recipe(tiny_recipe, [*PPO, "critic.shared_backbone=true"]), 1)["memory_bytes"]
    assert (shared["critic_weights"], shared["critic_masters"]) == (2 * 64, 4 * 64)


def test_a_critic_of_another_vocabulary_does_not_check_out(tiny_recipe, tiny_model, tmp_path):
    from transformers import AutoTokenizer, LlamaConfig

    config = LlamaConfig.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for name, vocab_size, added in (("larger", 130, []), ("other", 128, ["<more>"])):
        config.vocab_size = vocab_size
        config.save_pretrained(tmp_path / name)
        tokenizer.add_tokens(added)
        tokenizer.save_pretrained(tmp_path / name)
    for name, message in (("larger", "has 130 tokens, and that of .* has 128"), ("other", "other tokens than that of")):
        with pytest.raises(RecipeError, match=f"critic.model=.*{name}: its .*{message}"):
            check_recipe(load_recipe(tiny_recipe, [*PPO, f"critic.model={tmp_path / name}"]), 1)


def test_a_class_of_ones_own_that_needs_whole_matrices_is_refused_under_zero(tiny_recipe, tmp_path):
    (tmp_path / "mine.py").write_text("import torch\nclass Mine(torch.optim.SGD):\n    needs_whole_matrices = True\n")
    with pytest.raises(RecipeError, match=r"optimizer.name=.*:Mine needs whole matrices, but distributed.zero_stage=2"):
        check_recipe(load_recipe(tiny_recipe, [f"optimizer.name={tmp_path / 'mine.py'}:Mine"]), 1)


def test_sizes_and_memory_of_one_process_by_hand(tiny_recipe):
    result = check_recipe(load_recipe(tiny_recipe), 1)
    assert result["num_parameters"] == TINY
    assert result["sizes"] == {
        "num_processes": 1,
        "completions_per_step": 16,
        "completions_per_process": 16,
        "gradient_accumulation": 4,
        "updates_per_step": 1,
        "completions_in_run": 48,
        "max_new_tokens_per_step": 128,
    }
    prompt = result["task"]["longest_prompt_tokens"]
    length, tokens = prompt + 8, 4 * (prompt + 8)
    expected = {
        "weights": 2 * TINY,
        "gradients": 4 * TINY,  # four micro batches: summed in fp32
        "masters": 4 * TINY,
        "optimizer_state": 4 * TINY,  # AdamS: one fp32 value
        "reference_model": 0,
        "rollout_weights": 2 * TINY,
        # Keys and values of 2 layers, 1 head of 32, in bf16, for 16 completions of 8 tokens and their 4 prompts.
        "kv_cache": 2 * 2 * 1 * 32 * 2 * (16 * 8 + 4 * prompt),
        # Of 4 sequences, what tests/cost/test_activations.py counts: in each layer 16 bytes a hidden dimension, 8 of
        # attention and of the MLP, two normalizers, two scales, a row of the mask; then the last norm's backward pass.
        "activations": tokens * (2 * (16 * 64 + 8 * 64 + 8 * 128 + 8 + 8 + 2 * length) + 24 * 64),
        # The gradient of the output layer, which is the embedding, too, and waits for the embedding's.
        "logits": 2 * 128 * 64,
    }
    assert result["memory_bytes"] == expected | {"total": sum(expected.values())}


# The third quarter of the parameters touches most of them: a down projection, two norms, and of the second layer the
# attention and the gate.
TOUCHED = 64 * 128 + 2 * 64 + 2 * 64 * 64 + 2 * 64 * 32 + 64 * 128


@pytest.mark.parametrize(
    ("stage", "weights", "gradients", "masters", "state"),
    [
        (0, 2 * TINY, 2 * TINY, 4 * TINY, 4 * TINY),
        (1, 2 * TINY, 2 * TOUCHED, TINY, TINY),
        (2, 2 * TINY, 2 * TOUCHED, TINY, TINY),
        # All of these parameters are small enough that ZeRO-3 keeps them whole beside their shards.
        (3, 2.5 * TINY, TINY / 2, TINY, TINY),
    ],
)
@pytest.mark.parametrize("optimizer", ["adams", "adamw"])
def test_memory_on_four_processes(tiny_recipe, stage, weights, gradients, masters, state, optimizer):
    overrides = (f"distributed.zero_stage={stage}", f"optimizer.name={optimizer}", "rollout.engine=transformers")
    memory = check_recipe(load_recipe(tiny_recipe, overrides), 4)["memory_bytes"]
    if optimizer == "adamw":  # two buffers, and a counter for each of 20 tensors or for one shard
        state = 2 * state + 4 * (1 if stage else 20)
    expected = {
        "weights": weights,
        "gradients": gradients,
        "masters": masters,
        "optimizer_state": state,
        "reference_model": 0,
        "rollout_weights": 0,
    }
    on_top = {name: memory[name] for name in ("activations", "logits")}
    if stage == 3:  # nothing is left to be gathered
        on_top["gathered_weights"] = 0
    assert memory == expected | on_top | {"total": sum((expected | on_top).values())}


def test_a_reference_model_takes_as_much_as_the_weights_and_plain_pytorch_has_no_masters(tiny_recipe):
    overrides = ("algorithm.kl_coef=0.1", "distributed.engine=none")
    memory = check_recipe(load_recipe(tiny_recipe, overrides), 1)["memory_bytes"]
    assert memory["weights"] == memory["reference_model"] == memory["gradients"] == 4 * TINY
    assert memory["optimizer_state"] == 4 * TINY
    assert memory["masters"] == 0
    assert memory["rollout_weights"] == 2 * TINY


def test_an_optimizer_of_ones_own_has_a_total_unless_its_step_reads_values(tiny_recipe):
    overrides = ["optimizer.name=torch.optim:SGD", "optimizer.momentum=0.9"]
    assert check_recipe(load_recipe(tiny_recipe, overrides), 1)["memory_bytes"]["optimizer_state"] == 4 * TINY
    result = check_recipe(load_recipe(tiny_recipe, ["optimizer.name=torch.optim:Adafactor"]), 1)
    assert result["memory_bytes"]["optimizer_state"] is None
    assert result["memory_bytes"]["total"] is None
    assert any("torch.optim:Adafactor is unknown" in note for note in result["notes"])


def test_a_hub_model_that_is_not_reached_is_sized_by_its_published_shapes_or_not_at_all(tiny_recipe):
    result = check_recipe(load_recipe(tiny_recipe, ["model.name=Qwen/Qwen2.5-3B"]), 1)
    assert result["num_parameters"] == 3_085_938_688  # as its model card counts: 3.09 B
    assert any("published shapes" in note for note in result["notes"])
    result = check_recipe(load_recipe(tiny_recipe, ["model.name=no-such-owner/no-such-model"]), 1)
    assert result["memory_bytes"] is None
    assert any(note.startswith("memory is not predicted: ") for note in result["notes"])


def test_a_local_model_that_cannot_be_read_is_an_error_and_not_a_note(tiny_recipe, tmp_path):
    for config, reason in ((None, "the folder has no config.json"), ("{}", "its config.json cannot be read (")):
        folder = tmp_path / f"model-{config}"
        folder.mkdir()
        if config is not None:
            (folder / "config.json").write_text(config)
        with pytest.raises(RecipeError) as caught:
            check_recipe(load_recipe(tiny_recipe, [f"model.name={folder}"]), 1)
        assert str(caught.value).startswith(f"model.name={folder}: {reason}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.name=/no/such/model", "model.name=/no/such/model: no such folder"),
        ("algorithm.micro_batch_size=3", "algorithm.micro_batch_size=3: "),
        ("task.name=arithmetc", "task.name=arithmetc: "),
        ("task.digits=many", "task.digits=many: "),
        ("task.operatos=[+]", "task.operatos=['+']: "),
        ("rewards.0.fn=nothing", "rewards.0.fn=nothing: "),
        ("rewards.0.args.x=1", "rewards.0.args.x=1: "),
        ("optimizer.name=adms", "optimizer.name=adms: "),
        ("optimizer.eps=0", "optimizer.eps=0.0: adams refuses it"),
    ],
)
def test_what_cannot_run_does_not_check_out(tiny_recipe, override, message):
    with pytest.raises(RecipeError) as caught:
        check_recipe(load_recipe(tiny_recipe, [override]), 1)
    assert str(caught.value).startswith(message)


def test_the_command_prints_json_that_parses_and_text_that_reads_back(tiny_recipe, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["rl-posttrain", "check", str(tiny_recipe), "--num-processes", "2", "--json"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    result = json.loads(capsys.readouterr().out)
    assert result["sizes"]["completions_per_process"] == 8
    assert yaml.safe_load(result["recipe"])["algorithm"]["group_size"] == 4
    print_check(result)
    text = capsys.readouterr().out
    assert "gradient accumulation" in text
    assert "predicted memory on each device" in text
    assert "bf16 weights, fp32 masters" in text


def test_the_task_is_shown_with_one_prompt_as_the_model_gets_it(tiny_recipe, tiny_model, tmp_path, capsys):
    from transformers import AutoTokenizer

    result = check_recipe(load_recipe(tiny_recipe, ["task.num_eval=0"]), 1)
    task = result["task"]
    assert (task["name"], task["version"], task["template"]) == ("arithmetic", "1", "qa")
    assert (task["num_train"], task["num_eval"], task["notes"]) == (64, 0, [])
    a, b = map(int, re.fullmatch(r"Q: What is (\d) \+ (\d)\?\nA:", task["prompt"]).groups())
    assert task["answer"] == str(a + b)
    assert task["prompt_tokens"] == len(task["prompt"])  # a token a character
    print_check(result)
    assert f"  | Q: What is {a} + {b}?\n  | A:\nits gold: {a + b}\n" in capsys.readouterr().out

    # A chat needs a template; with one, the prompt is the text that it makes, up to where the reply begins.
    with pytest.raises(RecipeError, match=r"task\.template: .* has no chat template"):
        check_recipe(load_recipe(tiny_recipe, ["task.template=chat"]), 1)
    shutil.copytree(tiny_model, tmp_path / "chat")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "chat")
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
    tokenizer.save_pretrained(tmp_path / "chat")
    chat = ["task.template=chat", "task.system=Add.", f"model.name={tmp_path / 'chat'}"]
    prompt = check_recipe(load_recipe(tiny_recipe, chat), 1)["task"]["prompt"]
    assert re.fullmatch(r"\[system\]Add\.\[user\]What is \d \+ \d\? Answer with .*\.\[assistant\]", prompt)


def test_what_is_not_on_this_machine_leaves_a_note(tiny_recipe, capsys):
    away = ["model.name=Qwen/Qwen2.5-3B", "task.template=chat"]
    result = check_recipe(load_recipe(tiny_recipe, away), 1)
    assert result["task"]["prompt"][0]["role"] == "user"
    assert result["task"]["prompt_tokens"] is None
    assert (
        "the chat template is not applied: the tokenizer of Qwen/Qwen2.5-3B is not on this machine" in result["notes"]
    )
    print_check(result)
    assert "  | user: What is " in capsys.readouterr().out

    result = check_recipe(load_recipe(tiny_recipe, ["task={name: gsm8k}"]), 1)
    assert result["task"] is None
    assert any(note.startswith("the task's rows are not shown: task.path=openai/gsm8k: ") for note in result["notes"])
    print_check(result)


def test_rewards_that_do_not_fit_the_task_do_not_check_out(tiny_recipe):
    with pytest.raises(RecipeError, match=r"rewards\.0\.fn=countdown_equation: it needs 'numbers', which is neither"):
        check_recipe(load_recipe(tiny_recipe, ["rewards=[{fn: countdown_equation}]"]), 1)


def test_an_evaluation_without_rows_does_not_check_out(tiny_recipe, tmp_path):
    (tmp_path / "my.jsonl").write_text('{"question": "1 + 1?", "answer": 2}\n' * 8)
    task = f"task={{name: file, path: '{tmp_path / 'my.jsonl'}'}}"
    for switched_on in ("eval.every_steps=2", "eval.at_start=true"):
        with pytest.raises(RecipeError, match=r"task\.name=file: it gives no rows to evaluate on, and the recipe"):
            check_recipe(load_recipe(tiny_recipe, [task, switched_on]), 1)
    assert check_recipe(load_recipe(tiny_recipe, [task]), 1)["task"]["num_eval"] == 0


def test_on_a_named_device_the_engine_has_its_share_and_seconds_are_shown(tiny_recipe, capsys):
    recipe = load_recipe(tiny_recipe, ["rollout.gpu_memory_share=0.5"])
    assert check_recipe(recipe, 1)["step"] is None
    result = check_recipe(recipe, 4, Where(device="l4", nodes=2, prompt_tokens=20, mean_new_tokens=4))
    memory, step = result["memory_bytes"], result["step"]
    assert memory["rollout_weights"] + memory["kv_cache"] == 12 * 10**9
    assert step["tokens"] == {"prompt": 20, "mean_new": 4, "longest_new": 8}
    assert (step["device"], step["nodes"], step["sequences_at_once"]) == ("NVIDIA L4", 2, 4)
    seconds = step["seconds"]
    assert seconds["step"] == pytest.approx(sum(value for name, value in seconds.items() if name != "step"))
    # Of a model as small as this what does not depend on sizes is all: 8 token steps, 20 tensors, 3 passes of 1 layer.
    assert seconds["rollout"] == pytest.approx(8 * 0.12 / 16, rel=1e-2)
    assert seconds["sync"] == pytest.approx(20 * 0.12 / 273, rel=1e-2)
    assert (seconds["update"], seconds["logprobs"]) == (pytest.approx(3 * 2 * 3e-4, rel=1e-2), 0)
    print_check(result)
    shown = capsys.readouterr().out
    assert "NVIDIA L4, 2 nodes" in shown
    assert "fits into the 22.4 GiB" in shown
    # More than one update a step, a reference model and a critic: three forward passes before.
    several = check_recipe(
        load_recipe(tiny_recipe, [*PPO, "algorithm.num_mini_batches=2", "algorithm.kl_coef=0.1"]), 1, Where("h100")
    )
    assert several["step"]["seconds"]["logprobs"] == pytest.approx(3 * 4 * 2 * 3e-4)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"device": "h10"}, "--device=h10: no such device; .*h100"),
        ({"device": "h100", "measures": True}, "--measure-speed: it measures this machine, not h100"),
        ({"device": "h100", "nodes": 3}, "--nodes=3: 4 processes are no equal shares"),
        ({"nodes": 2}, "--nodes=2: this machine is one node"),
        ({"device": "h100", "mean_new_tokens": 9}, "--mean-new-tokens=9: completions end at .*max_new_tokens=8"),
    ],
)
def test_devices_that_make_no_sense_are_refused(tiny_recipe, where, message):
    with pytest.raises(RecipeError, match=message):
        check_recipe(load_recipe(tiny_recipe), 4, Where(**where))


def test_adapters_take_one_backward_pass_less_of_the_weights(tiny_recipe):
    large = ["model.name=Qwen/Qwen2.5-3B", "rollout.max_new_tokens=2048"]
    where = Where(device="h100", prompt_tokens=100)
    whole, adapters = (
        check_recipe(load_recipe(tiny_recipe, [*large, *lora]), 1, where) for lora in ([], ["model.lora={rank: 8}"])
    )
    ratio = adapters["step"]["seconds"]["update"] / whole["step"]["seconds"]["update"]
    # Two thirds for the layers, three quarters for the output layer; and gradients of adapters alone go into buckets.
    assert 0.65 < ratio < 0.7
    # The output layer has no gradient in fp32, and no copy of it in bf16.
    difference = whole["memory_bytes"]["logits"] - adapters["memory_bytes"]["logits"]
    assert difference == 6 * 151936 * 2048


def test_servers_have_devices_of_their_own(tiny_recipe):
    servers = ["rollout.engine=vllm_server", "rollout.servers=[http://127.0.0.1:8000, http://127.0.0.1:8001]"]
    recipe = load_recipe(tiny_recipe, ["model.name=Qwen/Qwen2.5-32B", "rollout.max_new_tokens=4096", *servers])
    one, two = (
        check_recipe(recipe, 4, Where(device="h100", devices_per_server=each, prompt_tokens=1000)) for each in (1, 2)
    )
    assert one["memory_bytes"]["rollout_weights"] == 0
    assert "kv_cache" not in one["memory_bytes"]
    # 72 of 80 GB less 65.5 of weights hold 24,700 tokens of 256 KiB: four sequences of 5,096. On two all eight fit.
    assert [result["step"]["sequences_at_once"] for result in (one, two)] == [4, 8]
    assert two["step"]["seconds"]["rollout"] < 0.6 * one["step"]["seconds"]["rollout"]
    ahead = load_recipe(tiny_recipe, [*servers, "rollout.max_staleness=1"])
    seconds = check_recipe(ahead, 4, Where(device="h100"))["step"]["seconds"]
    assert seconds["step"] < sum(value for name, value in seconds.items() if name != "step")


def test_a_share_that_is_too_small_for_the_engine_is_told(tiny_recipe):
    recipe = load_recipe(tiny_recipe, ["model.name=Qwen/Qwen2.5-3B", "rollout.gpu_memory_share=0.1"])
    notes = check_recipe(recipe, 1, Where(device="l4"))["notes"]
    assert any("gpu_memory_share=0.1 of NVIDIA L4 holds less than" in note for note in notes)


@pytest.mark.parametrize("num_processes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_the_command_measures_this_machine(run_main, tiny_recipe, num_processes):
    status, stdout, stderr = run_main(
        "check", tiny_recipe, "--measure-speed", "--num-processes", str(num_processes), "--json"
    )
    assert status == 0, stderr
    step = json.loads(stdout)["step"]
    assert step["device"] == "this machine"
    speeds = {name: value for name, value in step["speeds"].items() if name.endswith("per_s")}
    assert all(value > 0 for value in speeds.values())
    assert (step["seconds"]["links"] > 0) == (num_processes > 1)
    assert 0 < step["seconds"]["step"] < 60
