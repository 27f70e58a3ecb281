"""Recipes: loading, overrides, one-line errors, derived sizes."""

import copy
import re
import typing
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rl_posttrain.errors import RecipeError
from rl_posttrain.machine.process import world_size
from rl_posttrain.recipe.files import bundled_recipes, find_recipe, headline
from rl_posttrain.recipe.goals import _ABSENT
from rl_posttrain.recipe.load import load_recipe, parse_recipe
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.section import Section
from rl_posttrain.recipe.sizes import derive_sizes
from rl_posttrain.recipe.task_section import OneTaskSection
from rl_posttrain.runs.metrics import METRICS

MINIMAL = {
    "run": {"name": "minimal"},
    "model": {"name": "some/model"},
    "task": {"name": "arithmetic"},
    "rewards": [{"fn": "math_accuracy"}],
    "algorithm": {"num_steps": 10, "prompts_per_step": 8, "group_size": 6, "micro_batch_size": 12},
    "optimizer": {"lr": 1e-6},
    "rollout": {"max_new_tokens": 32},
}


def changed(key: str, value) -> dict:
    """MINIMAL with `key` (dotted) set to `value`."""
    data = copy.deepcopy(MINIMAL)
    *sections, last = key.split(".")
    node = data
    for section in sections:
        node = node[int(section)] if isinstance(node, list) else node.setdefault(section, {})
    node[int(last) if isinstance(node, list) else last] = value
    return data


def algorithm(**keys) -> dict:
    """MINIMAL's section with more keys."""
    return {"algorithm": MINIMAL["algorithm"] | keys}


def error_of(data) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(data)
    text = str(caught.value)
    assert "\n" not in text
    assert "; " in text, "a fix is missing"
    return text


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in MINIMAL.items() if key != "run"}))
    return path


def test_defaults_are_what_the_page_of_keys_says():
    recipe = parse_recipe(MINIMAL)
    assert (recipe.run.seed, recipe.run.output_dir) == (0, "runs")
    assert (recipe.optimizer.name, recipe.optimizer.max_grad_norm, recipe.optimizer.options) == ("adams", 1.0, {})
    assert (recipe.algorithm.name, recipe.algorithm.loss, recipe.algorithm.kl_coef) == ("grpo", "dr_grpo", 0.0)
    assert (recipe.rollout.engine, recipe.rollout.temperature) == ("vllm", 1.0)
    assert (recipe.distributed.engine, recipe.distributed.zero_stage) == ("deepspeed", 2)
    assert recipe.trl == {}


def test_the_name_of_a_run_is_by_default_that_of_the_file(file):
    recipe = load_recipe(file)
    assert recipe.run.name == "mine"
    assert str(recipe.run_path) == "runs/mine"


def test_overrides_are_yaml_and_reach_lists_and_new_sections(file):
    recipe = load_recipe(
        file,
        [
            "optimizer.lr=3e-5",
            "optimizer.betas=[0.8, 0.9]",
            "rewards.0.weight=0.5",
            "rewards.0.args={answer_in: [boxed]}",
            "task.operators=['+', '*']",
            "trl.top_k=5",
            "run.name=other",
            "logging.trackers=[]",
            "eval.k=[1, 2]",
        ],
    )
    assert recipe.optimizer.lr == 3e-5
    assert recipe.optimizer.options == {"betas": [0.8, 0.9]}
    assert recipe.rewards[0].weight == 0.5
    assert recipe.rewards[0].args == {"answer_in": ["boxed"]}
    assert recipe.task.options == {"operators": ["+", "*"]}
    assert recipe.trl == {"top_k": 5}
    assert recipe.run.name == "other"
    assert recipe.logging.trackers == ()
    assert recipe.eval.k == (1, 2)


def test_an_override_replaces_and_a_later_one_wins(file):
    assert load_recipe(file, ["run.seed=1", "run.seed=2"]).run.seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr", "an override is written section.key=value"),
        ("=3", "an override is written section.key=value"),
        ("optimizer.lr=[1", "the value is not valid YAML"),
        ("rewards.1.weight=2", "there is no entry 1 in a list of 1"),
        ("rewards.first.weight=2", "there is no entry first in a list of 1"),
        ("optimizer.lr.start=2", "lr is the value 1e-06 and has no keys of its own"),
    ],
)
def test_overrides_that_cannot_be_applied(file, override, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, [override])
    assert str(caught.value).startswith(override.split("=")[0] if override[0] != "=" else override)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("algorithm.group_sise", 8, "algorithm.group_sise=8: unknown key; did you mean 'group_size'?"),
        ("algoritm", {}, "algoritm={}: unknown key; did you mean 'algorithm'?"),
        ("rewards.0.wieght", 1, "rewards.0.wieght=1: unknown key; did you mean 'weight'?"),
        ("rollout.zzzz", 1, "rollout.zzzz=1: unknown key; known: engine, gpu_memory_share, "),
        ("algorithm.group_size", 0, "algorithm.group_size=0: it should be greater than 0"),
        ("critic.gama", 1, "critic.gama=1: unknown key; did you mean 'gamma'?"),
        ("critic.gae_lambda", 1.5, "critic.gae_lambda=1.5: it should be less than or equal to 1"),
        ("critic.optimizer.lr", 0, "critic.optimizer.lr=0: it should be greater than 0"),
        ("algorithm.num_steps", "ten", "algorithm.num_steps=ten: it should be a valid integer"),
        ("algorithm.num_steps", 1.5, "algorithm.num_steps=1.5: it should be a valid integer"),
        ("algorithm.num_steps", 0, "algorithm.num_steps=0: it should be greater than 0"),
        ("algorithm.loss", "drgrpo", "algorithm.loss=drgrpo: it should be 'grpo', 'dr_grpo'"),
        ("model.dtype", "bf16", "model.dtype=bf16: it should be 'bfloat16' or 'float32'; did you mean 'bfloat16'?"),
        ("distributed.zero_stage", 4, "distributed.zero_stage=4: it should be 0, 1, 2 or 3; set such a value"),
        ("optimizer.lr", -1, "optimizer.lr=-1: it should be greater than 0"),
        ("optimizer.lr", float("nan"), "optimizer.lr=nan: it should be a finite number"),
        ("run.name", "../up", "run.name=../up: string should match pattern"),
        ("run", 3, "run=3: it should be a section of keys and values"),
        ("distributed", None, "distributed=null: it should be a section of keys and values"),
        ("rewards", {}, "rewards={}: it should be a list"),
        ("rewards", [], "rewards=[]: "),
        ("eval.k", [1, "x"], "eval.k.1=x: it should be a valid integer"),
        ("trl", [], "trl=[]: it should be a section of keys and values"),
    ],
)
def test_a_value_that_cannot_be_is_one_line_with_key_value_reason_and_fix(key, value, message):
    assert error_of(changed(key, value)).startswith(message)


@pytest.mark.parametrize("key", ["model", "algorithm.num_steps", "optimizer.lr", "rollout.max_new_tokens", "task.name"])
def test_what_is_missing_is_named(key):
    data = copy.deepcopy(MINIMAL)
    *sections, last = key.split(".")
    node = data
    for section in sections:
        node = node[section]
    del node[last]
    assert error_of(data).startswith(f"{key}: missing")


EVALUATED = {"eval": {"every_steps": 5, "num_samples": 2, "k": [1, 2]}}
SERVERS = ["http://127.0.0.1:8000"]
OWN_REWARD = {"rewards": [{"fn": "my.py:own"}]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval": {"every_steps": 5, "num_samples": 2, "k": [1, 4]}}, "eval.k=[1, 4]: pass@4 needs 4 samples or "),
        (
            {"eval": {"every_steps": 5}, "task": {"name": "arithmetic", "num_eval": 0}},
            "eval.every_steps=5: task.num_eval=0 leaves no rows",
        ),
        ({"rewards": [{"fn": "a.py:good"}, {"fn": "b.py:good"}]}, "rewards=['good', 'good']: good is there twice"),
        (algorithm(kl_estimator="k1"), "algorithm.kl_estimator=k1: in the loss its expected gradient is 0"),
        (algorithm(name="ppo", scale_rewards="group"), "algorithm.scale_rewards=group: only grpo divides rewards"),
        (algorithm(name="ppo", zero_variance_groups="skip"), "algorithm.zero_variance_groups=skip: ppo trains its"),
        (
            algorithm(zero_variance_groups="resample", group_size=1),
            "algorithm.zero_variance_groups=resample: with algorithm.group_size=1 every group has one completion",
        ),
        (
            algorithm(kl_in="reward") | {"trl": {"multi_objective_aggregation": "normalize_then_sum"}},
            "algorithm.kl_in=reward: with trl.multi_objective_aggregation=normalize_then_sum each reward is",
        ),
        (
            algorithm(name="ppo") | {"critic": {"shared_backbone": True, "model": "some/other"}},
            "critic.model=some/other: with critic.shared_backbone=true the critic has no model of its own",
        ),
        (
            algorithm(name="ppo") | {"critic": {"warmup_steps": 10}},
            "critic.warmup_steps=10: the run has 10 steps, so the policy would never be updated",
        ),
        *(
            ({"checkpoint": {"keep_best": {"metric": name}}, **more}, f"checkpoint.keep_best.metric={name}: {reason}")
            for name, more, reason in [
                ("rewrd", {}, "no step records such a metric; did you mean 'reward'?"),
                ("prompts_sha256", {}, "no step records such a metric; known: accuracy, "),
                ("rewards/accuracy", {}, "no step records such a metric; did you mean 'rewards/math_accuracy'?"),
                ("eval/accuracy", {}, "only an evaluation knows it, and eval.every_steps=0; set eval.every_steps"),
                ("eval/pass@4", EVALUATED, "no step records such a metric; did you mean 'eval/pass@2'?"),
                ("kl", {}, "this run will not record it; it is absent at `algorithm.kl_coef: 0`"),
                ("value_loss", {}, "this run will not record it; it is absent without a critic"),
                ("well_formed", {}, "this run will not record it; it is absent without a reward that judges form"),
                ("eval/well_formed", EVALUATED, "this run will not record it; it is absent without a reward that"),
                ("eval/pass@2", EVALUATED | OWN_REWARD, "this run will not record it; it is absent without a reward"),
            ]
        ),
        *(
            ({"rollout": {"max_new_tokens": 8, **rollout}, **more}, message)
            for rollout, more, message in [
                ({"engine": "vllm_server"}, {}, "rollout.servers=[]: rollout.engine=vllm_server needs at least one"),
                ({"servers": SERVERS}, {}, f"rollout.servers={SERVERS}: rollout.engine=vllm asks no server"),
                (
                    {"engine": "vllm_server", "servers": [*SERVERS, *SERVERS]},
                    {},
                    f"rollout.servers={[*SERVERS, *SERVERS]}: http://127.0.0.1:8000 is there twice",
                ),
                (
                    {"engine": "vllm_server", "servers": SERVERS, "trainer_address": "10.0.0.1"},
                    {},
                    "rollout.trainer_address=10.0.0.1: with rollout.weight_transfer=files nothing listens",
                ),
                *(
                    ({"engine": "vllm_server", "servers": [address]}, {}, f"rollout.servers.0={address}: ")
                    for address in ("127.0.0.1:8000", "http://127.0.0.1:8000/v1", "ftp://host", "http://me:pass@host")
                ),
            ]
        ),
        (algorithm(stop_at={"reward": 1, "acuracy": 0.9}), "algorithm.stop_at.acuracy=0.9: no step records such a"),
    ],
)
def test_values_that_do_not_go_together(changes, message):
    assert error_of({**MINIMAL, **changes}).startswith(message)


@pytest.mark.parametrize(
    "changes",
    [
        {"eval": {"every_steps": 0, "num_samples": 2, "k": [1, 4]}},  # no evaluation: k is of no consequence
        algorithm(num_epochs=2) | {"checkpoint": {"every_steps": 5}},
        algorithm(name="ppo", group_size=1) | {"critic": {"warmup_steps": 9}},
        algorithm(kl_estimator="k1", kl_in="reward"),
        *(
            {"checkpoint": {"keep_best": {"metric": name, "mode": "max"}}, **EVALUATED}
            for name in ("eval/accuracy", "eval/pass@2", "eval/math_accuracy", "rewards/math_accuracy", "accuracy")
        ),
        algorithm(stop_at={"tokens": 1e6, "math_accuracy/timeout": 0.1, "math_accuracy/what_it_logs": 1}),
        {
            "run": {"name": "x", "deterministic": True},
            "rollout": {"max_new_tokens": 8, "engine": "vllm_server", "servers": SERVERS},
        },
    ],
)
def test_values_that_do(changes):
    parse_recipe({**MINIMAL, **changes})


def test_the_mode_of_the_best_goes_by_the_metric_and_is_in_the_resolved_recipe():
    for metric, mode in (("reward", "max"), ("tokens", "max"), ("truncated_share", "min")):
        recipe = parse_recipe(changed("checkpoint.keep_best.metric", metric))
        assert recipe.checkpoint.keep_best.mode == mode
        assert yaml.safe_load(recipe.to_yaml())["checkpoint"]["keep_best"] == {"metric": metric, "mode": mode}


def test_every_reason_to_be_absent_is_checked():
    assert {metric.absent for metric in METRICS if metric.absent} == set(_ABSENT)


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "- 1\n- 2", "just text", "", "\t", "? [x]\n: y"])
def test_a_file_that_is_no_recipe(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"RECIPE={path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("grpo", ("group", "loss", "k3")),
        ("rloo", (None, "reward", "k1")),
        ("reinforce_pp", (None, "reward", "k1")),
        ("reinforce_pp_baseline", (None, "loss", "k2")),
        ("ppo", (None, "reward", "k1")),
        ("mine.py:Mine", (None, "loss", "k3")),
    ],
)
def test_some_defaults_go_by_the_algorithm_and_are_in_the_resolved_recipe(name, expected):
    resolved = yaml.safe_load(parse_recipe({**MINIMAL, **algorithm(name=name)}).to_yaml())
    section = resolved["algorithm"]
    assert (section["scale_rewards"], section["kl_in"], section["kl_estimator"]) == expected
    assert ("critic" in resolved) == (name == "ppo")


def test_null_stands_for_what_the_algorithm_decides():
    """So that the resolved recipe of one algorithm can be run with another."""
    unsaid = algorithm(name="grpo", scale_rewards=None, kl_in=None, kl_estimator=None)
    section = parse_recipe({**MINIMAL, **unsaid}).algorithm
    assert (section.scale_rewards, section.kl_in, section.kl_estimator) == ("group", "loss", "k3")


def test_a_step_of_several_updates_by_hand():
    several = algorithm(num_mini_batches=4, num_epochs=3, micro_batch_size=6)
    sizes = derive_sizes(parse_recipe({**MINIMAL, **several}), 2)
    assert sizes.updates_per_step == 12
    assert sizes.gradient_accumulation == 1  # 48 / 4 mini batches / (6 x 2 processes)
    with pytest.raises(RecipeError) as caught:
        derive_sizes(parse_recipe({**MINIMAL, **algorithm(num_mini_batches=5)}), 2)
    assert str(caught.value) == (
        "algorithm.num_mini_batches=5: 48 completions a step do not divide into 5 mini batches on 2 processes; "
        "set num_mini_batches to one of [1, 2, 3, 4, 6, 8, 12, 24]"
    )


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(RecipeError, match="cannot be read as YAML"):
        load_recipe(path)


def test_recipes_are_found_by_bundled_name_and_by_path(file, monkeypatch):
    assert find_recipe("quickstart") == bundled_recipes()["quickstart"]
    assert find_recipe(file) == file
    with pytest.raises(RecipeError, match="no file and no bundled recipe of that name; did you mean 'quickstart'"):
        find_recipe("quikstart")
    with pytest.raises(RecipeError, match="no such file"):
        find_recipe("quikstart.yaml")
    with pytest.raises(RecipeError):
        find_recipe(file.parent)  # a folder


@pytest.mark.parametrize("name", bundled_recipes())
def test_every_bundled_recipe_says_what_it_shows_and_reads_back_the_same(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.run.name == name.rpartition("/")[2]
    assert len(headline(bundled_recipes()[name])) > 20
    path = tmp_path / "again.yaml"
    path.write_text(recipe.to_yaml())
    assert load_recipe(path) == recipe


def test_sizes_by_hand():
    sizes = derive_sizes(parse_recipe(MINIMAL), 2)
    assert sizes.model_dump() == {
        "num_processes": 2,
        "completions_per_step": 48,  # 8 prompts x 6
        "completions_per_process": 24,
        "gradient_accumulation": 2,  # 48 / (12 x 2 processes)
        "updates_per_step": 1,
        "completions_in_run": 480,
        "max_new_tokens_per_step": 1536,
    }


def test_a_step_of_more_completions_than_anybody_draws_is_refused():
    recipe = load_recipe("quickstart", ["algorithm.group_size=1000000000"])
    with pytest.raises(
        RecipeError, match=r"^algorithm\.group_size=1000000000: .* lower group_size or prompts_per_step"
    ):
        derive_sizes(recipe, 1)


def test_a_step_that_does_not_divide_says_which_micro_batches_do():
    recipe = parse_recipe(changed("algorithm.micro_batch_size", 5))
    with pytest.raises(RecipeError) as caught:
        derive_sizes(recipe, 1)
    assert str(caught.value) == (
        "algorithm.micro_batch_size=5: 8 prompts x 6 completions = 48 a step do not divide into micro batches of 5 "
        "on 1 process; set micro_batch_size to one of [1, 2, 3, 4, 6, 8, 12, 16]"
    )
    with pytest.raises(RecipeError, match="do not divide over 7 processes; make prompts_per_step a multiple of 7"):
        derive_sizes(recipe, 7)


@given(st.integers(1, 24), st.integers(2, 16), st.integers(1, 40), st.integers(1, 6))
def test_sizes_always_multiply_up_or_the_fix_is_one(prompts, group, micro_batch, processes):
    numbers = {"prompts_per_step": prompts, "group_size": group, "micro_batch_size": micro_batch, "num_steps": 3}
    recipe = parse_recipe({**MINIMAL, "algorithm": numbers})
    try:
        sizes = derive_sizes(recipe, processes)
    except RecipeError as error:
        fix = str(error).partition("; ")[2]
        if fix.startswith("set micro_batch_size"):
            for size in yaml.safe_load(fix.partition("one of ")[2]):
                derive_sizes(parse_recipe({**MINIMAL, "algorithm": {**numbers, "micro_batch_size": size}}), processes)
        else:
            assert (prompts * group) % processes
    else:
        assert sizes.gradient_accumulation * micro_batch * processes == sizes.completions_per_step == prompts * group
        assert sizes.completions_per_process * processes == sizes.completions_per_step


def test_a_recipe_cannot_be_changed():
    recipe = parse_recipe(MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        recipe.run.seed = 3


def test_world_size_is_the_launchers(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert world_size() == 4
    monkeypatch.delenv("WORLD_SIZE")
    assert world_size() == 1


def test_the_page_of_keys_has_every_key_with_its_default():
    page = (Path(__file__).parents[2] / "docs" / "recipe.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `([\w.]+)` \| (.+?) \| .+ \|$", page, re.MULTILINE))
    of_a_task = OneTaskSection.model_fields
    expected = {
        key.replace("rewards.", "rewards.0.").replace("parts.", "parts.0."): "required"
        if field.is_required()
        else f"`{as_yaml(field.get_default(call_default_factory=True))}`"
        for key, field in every_key(Recipe)
        # A part of a mixture has the keys of a task, and its own.
        if not (key.startswith("task.parts.") and key.removeprefix("task.parts.").partition(".")[0] in of_a_task)
    }
    expected["trl"] = "`{}`"
    expected["run.name"] = "the file's name"  # load_recipe gives it one
    for name in ("num_train", "num_eval", "template"):
        expected[f"task.{name}"] = "the task's own"
    assert told == expected


def test_every_key_is_read_somewhere():
    package = Path(__file__).parents[2] / "rl_posttrain"
    code = [
        path.read_text(encoding="utf-8")
        for path in package.rglob("*.py")
        if path.name not in ("schema.py", "task_section.py")
    ]
    read = set(re.findall(r"\.(\w+)", "\n".join(code)))
    keys = {key.rpartition(".")[2] for key, _ in every_key(Recipe)}
    assert len(keys) > 60
    assert keys - read == set()


def every_key(kind: type[Section], prefix: str = ""):
    """Each key that has a value of its own, with its pydantic field; sections inside of sections included."""
    for name, field in kind.model_fields.items():
        annotation = field.annotation
        kinds = [annotation, *typing.get_args(annotation)]  # of a list of sections, or one that may be missing
        section = next((each for each in kinds if isinstance(each, type) and issubclass(each, Section)), None)
        if section:
            yield from every_key(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def as_yaml(value) -> str:
    value = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()
