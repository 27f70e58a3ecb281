"""Whatever stands in a recipe, its bytes, an override, a data file or metrics: status 0, or one line and status 2."""

import copy
import itertools
import json

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st
from in_process import complaint, run_here
from test_fuzz import changes

# Values that many keys take, so that a recipe with one of them often goes through.
_USUAL_TEXT = """
null true false 0 1 2 3 4 8 1000 1000000 2147483648 -1 0.0 0.5 1.0 1e-300 1e300 1e-6 grpo dapo ppo rloo
reinforce_pp adams adamw scale muon galore apollo qa chat r1_zero vllm transformers deepspeed none bfloat16
float32 group batch skip resample keep reward loss k1 k2 k3 linear cosine constant answer form math_accuracy
think_answer_format soft_overlong repetition_penalty cosine_scaled countdown countdown_equation file
arithmetic mixture max min stop zero some/model /dev/null {} [] [0,1] [1,4] [question] [embedding]
"""
USUAL = _USUAL_TEXT.split()
_INNER_TEXT = """
task.digits task.operators task.num_train task.num_eval task.eval_share task.path task.columns task.filter
task.parts task.template task.system task.max_overlap optimizer.betas optimizer.eps optimizer.rank
optimizer.weight_decay optimizer.no_decay optimizer.lr_by_role critic.model critic.shared_backbone
critic.warmup_steps trl.num_iterations trl.top_k trl.chat_template_kwargs trl.beta
trl.mask_truncated_completions rewards.0.args rewards.0.tasks rewards.0.isolated rewards.0.timeout_s
rewards.0.import_timeout_s rewards.0.range rewards.0.judges
"""
INNER = _INNER_TEXT.split()
usual_changes = st.lists(st.tuples(st.sampled_from(INNER), st.sampled_from(USUAL)), min_size=1, max_size=2)


@pytest.fixture(scope="module")
def base(tiny_recipe, tmp_path_factory):
    """A folder, and the plain data of a recipe that `check` takes."""
    return tmp_path_factory.mktemp("fuzz"), yaml.safe_load(tiny_recipe.read_text())


def fuzz(strategy, try_one, examples: int) -> list[int]:
    """Try so many examples; their statuses."""
    found = []

    @hypothesis.settings(max_examples=examples, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(strategy)
    def run(example):
        status, err = try_one(example)
        assert complaint(status, err) is None, (complaint(status, err), example)
        found.append(status)

    run()
    return found


def check_recipes(base, examples: int) -> None:
    folder, data = base
    plain = folder / "plain.yaml"
    plain.write_text(yaml.safe_dump(data))

    def try_one(example):
        said, as_overrides = example
        if as_overrides:
            status, _, err = run_here("check", plain, "--", *(f"{key}={value}" for key, value in said))
            return status, err
        changed, file = copy.deepcopy(data), folder / "changed.yaml"
        for number, (key, _) in enumerate(said):
            *sections, last = key.split(".")
            node = changed
            for section in sections:
                node = node[0] if isinstance(node, list) else node.setdefault(section, {})
                if not isinstance(node, (dict, list)):
                    return 0, ""
            node[0 if isinstance(node, list) else last] = f"HERE{number}"
        text = yaml.safe_dump(changed)
        for number, (_, value) in enumerate(said):
            text = text.replace(f"HERE{number}", value)
        file.write_text(text, encoding="utf-8", errors="surrogatepass")
        status, _, err = run_here("check", file)
        return status, err

    found = fuzz(st.tuples(changes | usual_changes, st.booleans()), try_one, examples)
    assert set(found) == {0, 2}


def test_check_takes_a_recipe_or_refuses_it_in_one_line(base):
    check_recipes(base, 150)


@pytest.mark.long
def test_check_takes_two_thousand_recipes_or_refuses_them_in_one_line(base):
    check_recipes(base, 2000)


def test_a_recipe_of_any_bytes(base):
    folder, data = base
    text = yaml.safe_dump(data).encode()

    def try_one(example):
        place, length, middle = example
        start = place % len(text)
        (folder / "bytes.yaml").write_bytes(text[:start] + middle + text[start + length :])
        status, _, err = run_here("check", folder / "bytes.yaml")
        return status, err

    fuzz(st.tuples(st.integers(0, 10**6), st.integers(0, 9), st.binary(max_size=9)), try_one, 60)


def test_rows_of_any_shape(base):
    folder, data = base
    numbers = itertools.count()
    recipe = copy.deepcopy(data) | {"rewards": [{"fn": "math_accuracy"}]}
    recipe["algorithm"] |= {"prompts_per_step": 1}
    names = st.sampled_from(["question", "prompt", "answer", "solution", "problem", "level", "completions", "", "x"])
    message = st.fixed_dictionaries({}, optional={"role": st.sampled_from(["user", "system", 1]), "content": st.text()})
    value = st.one_of(st.text(max_size=5), st.none(), st.integers(), st.floats(), st.lists(message, max_size=2))
    row = st.dictionaries(names, value, max_size=4) | st.fixed_dictionaries({"question": value, "answer": value})
    whole = st.lists(row | value, max_size=5)

    def try_one(example):
        rows, ending, cut = example
        path = folder / f"rows{next(numbers)}{ending}"
        text = json.dumps(rows) if ending == ".json" else "".join(json.dumps(one) + "\n" for one in rows)
        path.write_bytes(text.encode()[: len(text) - cut])
        recipe["task"] = {"name": "file", "path": str(path), "num_eval": 1}
        (folder / "rows.yaml").write_text(yaml.safe_dump(recipe))
        status, _, err = run_here("check", folder / "rows.yaml")
        return status, err

    found = fuzz(
        st.tuples(whole, st.sampled_from([".json", ".jsonl", ".csv", ".parquet"]), st.integers(0, 2)), try_one, 80
    )
    assert 2 in found


@pytest.mark.parametrize("name", ["metrics.jsonl", "x.csv", "trainer_state.json"])
def test_metrics_of_any_shape(base, name):
    folder, data = base
    run = folder / f"run-{name}"
    run.mkdir()
    file = run / name
    if name == "metrics.jsonl":
        (run / "recipe.yaml").write_text(yaml.safe_dump(data))
    step = st.integers(-2, 9) | st.none() | st.text(max_size=3) | st.floats()
    number = st.floats() | st.integers() | st.none() | st.text(max_size=3) | st.booleans()
    keys = {"reward": number, "seconds": number, "step_time": number, "tokens": number, "grad_norm": number}
    row = st.fixed_dictionaries({"step": step}, optional=keys) | st.fixed_dictionaries({}, optional=keys)
    rising = st.lists(number, min_size=1, max_size=6).map(
        lambda values: [{"step": place, "reward": value} for place, value in enumerate(values, 1)]
    )

    def try_one(example):
        rows, end, command = example
        if name == "metrics.jsonl":
            text = "".join(json.dumps(one) + "\n" for one in rows) + end
        elif name == "x.csv":
            lines = [",".join(str(one.get(key, "")) for key in ("step", "reward", "seconds")) for one in rows]
            text = "step,reward,seconds\n" + "\n".join(lines) + end
        else:
            state = {"log_history": rows, "global_step": len(rows), "max_steps": end or 3}
            text = json.dumps(state)
        file.write_text(text, errors="backslashreplace")
        out = ["--out", folder / "report"] if command == "report" else []
        status, _, err = run_here(command, run, *out)
        return status, err

    ends = st.sampled_from(["", '{"step"', "7", "\x00", "[1]\n"])
    found = fuzz(
        st.tuples(rising | st.lists(row, max_size=5), ends, st.sampled_from(["curves"] * 5 + ["report"])), try_one, 60
    )
    assert set(found) == {0, 2}
