"""`rl-posttrain eval` on the real engines: the same samples however they are asked for, continued, compared."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import run_command
from transformers import AutoModelForCausalLM

from rl_posttrain.evaluation.alone import evaluate_alone
from rl_posttrain.evaluation.evaluate import Amount, evaluate
from rl_posttrain.evaluation.sampler import Sampler
from rl_posttrain.evaluation.subjects import find_subject, find_subjects
from rl_posttrain.recipe.evaluation import evaluation_for
from rl_posttrain.rollout.engine import Sampling
from rl_posttrain.tasks.arithmetic import arithmetic

ENGINES = ["transformers", "vllm"]
# Two blocks, the second of them not full, with prompts of unequal lengths.
ROWS = [
    {"prompt": f"Q: {row['question']}\nA:", "answer": row["answer"]}
    for row in arithmetic(num_train=1, num_eval=100, seed=0, digits=2).eval
]


@pytest.fixture(scope="module")
def samplers(tiny_model):
    """The tiny model on each engine."""
    made = {}
    for engine in ENGINES:
        evaluation = evaluation_for(
            str(tiny_model), task="arithmetic", options={"rollout": {"engine": engine}}, overrides=[], recipe=None
        )
        made[engine] = Sampler(find_subject(str(tiny_model)), evaluation, longest=64)
    yield made
    for sampler in made.values():
        sampler.close()


@pytest.fixture(params=ENGINES)
def ask(request, samplers):
    """Evaluates the tiny model: folder, questions, samples, temperature."""
    sampler = samplers[request.param]

    def ask(folder: Path, num_questions: int, num_samples: int, temperature: float = 1.0) -> dict:
        sampling = Sampling(max_tokens=12, temperature=temperature)
        results = evaluate(
            ROWS,
            lambda rows, seeds: sampler.draw(rows, seeds, sampling, {}),
            [],
            Amount(num_questions, num_samples, (1,)),
            seed=0,
            depends_on_batch=sampler.depends_on_batch,
            folder=folder,
            settings={},
        )
        return results["metrics"]

    return ask


def samples_of(folder: Path) -> dict[tuple[int, int], dict]:
    lines = [json.loads(line) for line in (Path(folder) / "samples.jsonl").read_text().splitlines()]
    return {(line["question"], line["sample"]): line for line in lines}


def test_four_samples_and_four_more_are_eight_at_once(ask, tmp_path):
    at_once = ask(tmp_path / "at_once", 100, 8)
    ask(tmp_path / "by_and_by", 40, 4)
    ask(tmp_path / "by_and_by", 100, 4)
    assert ask(tmp_path / "by_and_by", 100, 8) == at_once
    assert samples_of(tmp_path / "by_and_by") == samples_of(tmp_path / "at_once")
    texts = {sample["completion"] for sample in samples_of(tmp_path / "at_once").values()}
    assert len(texts) > 700  # of 800: the seeds differ


def test_what_was_sampled_in_between_changes_nothing(ask, tmp_path):
    ask(tmp_path / "first", 100, 1)
    ask(tmp_path / "other", 70, 2, temperature=0.5)
    ask(tmp_path / "again", 100, 1)
    assert samples_of(tmp_path / "first") == samples_of(tmp_path / "again")


def test_greedy_answers_are_the_likeliest_tokens(ask, samplers, tiny_model, tmp_path):
    ask(tmp_path, 8, 1, temperature=0.0)
    sample = samples_of(tmp_path)[3, 0]
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    tokenizer = samplers["vllm"]._tokenizer
    ids = tokenizer(sample["prompt"])["input_ids"]
    for _ in range(4):  # further on, rounding in bfloat16 may change a choice
        ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
    assert sample["completion"].startswith(tokenizer.decode(ids[-4:], skip_special_tokens=True))


class Silent(io.StringIO):
    """Listens and keeps the notes."""

    def note(self, text):
        self.write(text + "\n")

    def begin(self, model, task, num_questions, num_samples):
        self.note(f"begin {model} {task}")

    def progress(self, num_done, num_samples, num_tokens, seconds):
        self.note(f"{num_done}/{num_samples}")


@pytest.fixture(scope="module")
def other_model(tiny_model, tmp_path_factory) -> Path:
    """The tiny model with weights of its own."""
    folder = tmp_path_factory.mktemp("models") / "other-llama"
    shutil.copytree(tiny_model, folder)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def test_models_that_share_an_engine_answer_as_each_does_alone(tiny_model, other_model, tmp_path):
    def pair(model):
        options = {"eval": {"num_samples": 2, "num_questions": 30, "max_new_tokens": 8}}
        return find_subject(str(model)), evaluation_for(
            str(model), task="arithmetic", options=options, overrides=["task.digits=2"], recipe=None
        )

    told = Silent()
    together = evaluate_alone([pair(tiny_model), pair(other_model)], out=tmp_path / "together", listener=told)
    assert told.getvalue().count("loading") == 1
    (alone,) = evaluate_alone([pair(other_model)], out=tmp_path / "alone", listener=Silent())
    assert together[1]["metrics"] == alone["metrics"]
    assert samples_of(together[1]["folder"]) == samples_of(alone["folder"])
    assert samples_of(together[0]["folder"]) != samples_of(alone["folder"])


@pytest.fixture(scope="module")
def other_formats(other_model, tmp_path_factory) -> list[Path]:
    """The other model as a file of torch, and with further tokens that end a completion."""
    folder = tmp_path_factory.mktemp("models")
    torch_file, many_ends = shutil.copytree(other_model, folder / "bin"), shutil.copytree(other_model, folder / "ends")
    (torch_file / "model.safetensors").unlink()
    torch.save(AutoModelForCausalLM.from_pretrained(other_model).state_dict(), torch_file / "pytorch_model.bin")
    (many_ends / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(2, 40))}))
    return [torch_file, many_ends]


def test_a_model_that_cannot_take_its_turn_in_an_engine_gets_its_own(tiny_model, other_model, other_formats, tmp_path):
    def pair(model):
        options = {"eval": {"num_questions": 20, "max_new_tokens": 8, "temperature": 1}}
        return find_subject(str(model)), evaluation_for(
            str(model), task="arithmetic", options=options, overrides=[], recipe=None
        )

    models = [tiny_model, other_model, *other_formats]
    together = evaluate_alone([pair(model) for model in models], out=tmp_path, listener=Silent())
    tiny, other, torch_file, many_ends = (samples_of(result["folder"]) for result in together)
    assert torch_file == other != tiny
    num_ended = [sum(row["finish_reason"] == "stop" for row in found.values()) for found in (other, many_ends)]
    assert num_ended[0] < 10 < num_ended[1]


def test_a_model_without_tokens_for_padding_and_the_end_draws_to_the_limit(tiny_model, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        content = json.loads((model / name).read_text())
        gone = dict.fromkeys(key for key in content if key.startswith(("eos_token", "pad_token")))
        (model / name).write_text(json.dumps(content | gone))
    options = {"eval": {"num_questions": 4, "max_new_tokens": 4}, "rollout": {"engine": "transformers"}}
    evaluation = evaluation_for(str(model), task="arithmetic", options=options, overrides=[], recipe=None)
    (result,) = evaluate_alone([(find_subject(str(model)), evaluation)], out=tmp_path / "out", listener=Silent())
    assert result["metrics"]["length"]["value"] == 4
    assert result["metrics"]["truncated"]["value"] == 1


def test_models_are_told_apart_and_each_is_there_once(tiny_model, tmp_path, monkeypatch):
    for parent in ("a", "b"):
        final = tmp_path / parent / "run-1" / "checkpoints" / "final"
        shutil.copytree(tiny_model, final)
        (tmp_path / parent / "run-1" / "recipe.yaml").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert [subject.name for subject in find_subjects(["a/run-1"]).values()] == ["run-1"]
    found = find_subjects(["a/run-1", str(tiny_model), "b/run-1", "a/run-1/", "a/run-1/checkpoints/final"])
    names = ["a/run-1", str(tiny_model), "b/run-1", "a/run-1", "a/run-1"]
    assert [subject.name for subject in found.values()] == names


def test_two_data_files_are_two_tasks_and_the_baseline_is_the_one_asked_for(
    run_main, tiny_model, other_model, tmp_path
):
    for number, name in enumerate(["one", "two"]):
        rows = [{"question": f"{place} + {number}?", "answer": str(place + number)} for place in range(10)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    status, stdout, stderr = run_main(
        "eval", tiny_model, other_model, "--task", files[0], "--task", files[1], "--task", files[0],
        "--max-new-tokens", 8, "--compare", tiny_model, "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert status == 0, stderr
    found = json.loads(stdout)
    assert [(result["model"], result["title"]) for result in found["evaluations"]] == [
        (str(model), str(file)) for model in (tiny_model, other_model) for file in files
    ]
    assert [(each["task"], each["model"], each["baseline"]) for each in found["comparisons"]] == [
        (str(file), str(other_model), str(tiny_model)) for file in files
    ]


def test_samples_of_another_reward_or_chat_template_are_other_samples(run_main, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = shutil.copytree(tiny_model, tmp_path / "model")
    command = ["eval", model, "--task", "arithmetic", "--num-questions", 4, "--max-new-tokens", 4, "--out", "out",
               "--engine", "transformers", "task.template=chat", "rewards.0.fn=own.py:own"]  # fmt: skip
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    own = "def own(completions, **columns):\n    return [{}] * len(completions)\n"
    (tmp_path / "own.py").write_text(own.format(1.0))
    status, _, stderr = run_main(*command)
    assert status == 0, stderr
    status, _, stderr = run_main(*command, "trl.chat_template_kwargs={a: 1}")
    assert (status, "were drawn with chat.options.a=null, not 1" in stderr) == (2, True)
    (tmp_path / "own.py").write_text(own.format(0.5))
    status, _, stderr = run_main(*command)
    assert (status, f"were drawn with reward_files.{tmp_path}/own.py:own=" in stderr) == (2, True), stderr


def test_the_command_evaluates_compares_and_tells_where_the_samples_are(run_main, tiny_model, other_model, tmp_path):
    command = [
        "eval", tiny_model, "--task", "arithmetic", "--num-questions", 30, "--num-samples", 2, "--k", "1,2",
        "--max-new-tokens", 8, "--compare", other_model, "--out", tmp_path,
    ]  # fmt: skip
    status, stdout, stderr = run_main(*command)
    assert status == 0, stderr
    assert "arithmetic (version 1, template qa): 30 questions x 2 samples, temperature 1" in stdout
    for words in ("accuracy", "pass@2", "maj@2", "no readable answer", "cut at the limit", "95 % interval"):
        assert words in stdout
    assert "Traceback" not in stderr
    folders = [Path(line.split("  ")[1]) for line in stdout.splitlines() if line.startswith("samples  ")]
    assert [len(samples_of(folder)) for folder in folders] == [128, 128]  # whole blocks of 64, twice
    status, stdout, stderr = run_main(*command, "--json")
    found = json.loads(stdout)
    assert [result["tokens_drawn"] for result in found["evaluations"]] == [0, 0]  # all of it was there
    (comparison,) = found["comparisons"]
    assert set(comparison["differences"]["accuracy"]) == {"difference", "low", "high", "num_questions"}
    questions = [
        [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()] for folder in folders
    ]
    mean = sum(a["metrics"]["length"] - b["metrics"]["length"] for a, b in zip(*questions, strict=True)) / 30
    assert comparison["differences"]["length"]["difference"] == pytest.approx(mean)


def test_two_processes_share_the_samples_and_draw_those_of_one(tiny_model, run_main, tmp_path):
    arguments = ["eval", tiny_model, "--task", "arithmetic", "--temperature", 1, "--max-new-tokens", 8, "--out"]
    done = run_command(*arguments, tmp_path / "two", processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("accuracy") == 1, "one of them prints"
    status, _, stderr = run_main(*arguments, tmp_path / "one")
    assert status == 0, stderr
    texts = [(tmp_path / name / "samples.jsonl").read_text().splitlines() for name in ("one", "two")]
    assert sorted(texts[0]) == sorted(texts[1])
