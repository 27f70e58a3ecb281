"""Rewards that raise, hang or crash, TRL's own rewards by name, and golds that cannot be read."""

import math
import os

import pytest
from conftest import slowness
from test_rewards import PASSED, build, error_of, recipe_of, specs_of

from rl_posttrain.errors import RecipeError, RewardError
from rl_posttrain.recipe.load import parse_recipe
from rl_posttrain.scoring.golds import check_golds

FILE = """
import ctypes, os, time

def fragile(completions, answer, log_metric=None, **kwargs):
    if log_metric:
        log_metric("seen", len(completions))
    return [float(1 / int(text) == float(gold)) for text, gold in zip(completions, answer, strict=True)]

def hangs(completions, seconds: float = 0.0, **kwargs):
    if completions == ["hang"]:
        while True:
            pass
    if completions == ["crash"]:
        ctypes.string_at(0)
    return [float(len(text)) for text in completions]

def together(completions, **kwargs):
    if len(completions) > 1:
        raise ValueError("too many")
    return [1.0]

def wants_state(completions, trainer_state, **kwargs):
    return [0.0] * len(completions)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def logged():
    metrics = {}
    return metrics, {**PASSED, "log_metric": metrics.__setitem__}


def test_the_row_and_the_completion_that_a_reward_raises_on_are_named(file):
    (reward,) = build({"fn": f"{file}:fragile"})
    metrics, passed = logged()
    batch = {"completions": ["1", "2", "0", "x" * 999], "answer": ["1", "3", "1", "1"]}
    passed["prompts"] = ["a", "b", "What\nis it?", "d"]
    text = error_of(reward, **{**passed, **batch}, kind=RewardError)
    assert text == (
        "rewards.0.fn=fragile: raised ZeroDivisionError: division by zero on row 2 of 4, prompt 'What\\nis it?', "
        "completion '0'; a reward must accept any text: fix it, or set rewards.0.on_error=zero"
    )
    batch["completions"][2] = "y" * 999
    assert len(error_of(reward, **{**passed, **batch}, kind=RewardError)) < 600
    assert "fragile/errors" not in metrics


def test_on_error_zero_pays_nothing_for_that_row_and_counts_it(file):
    (reward,) = build({"fn": f"{file}:fragile", "on_error": "zero"})
    metrics, passed = logged()
    assert reward(completions=["1", "0", "2", "x"], answer=["1", "1", "0.5", "1"], **passed) == [1.0, 0.0, 1.0, 0.0]
    assert metrics["fragile/errors"] == 0.5
    assert reward(completions=["1", "4"], answer=["1", "1"], **passed) == [1.0, 0.0]
    assert metrics == {"fragile/errors": 0.0, "fragile/seen": 2}


def test_a_reward_that_fails_only_on_the_batch_says_so(file):
    (reward,) = build({"fn": f"{file}:together"})
    text = error_of(reward, completions=["a", "b"], answer=["1", "1"], kind=RewardError)
    assert "raised ValueError: too many on 2 completions together, and on none of them alone" in text


def test_an_isolated_reward_is_ended_at_its_deadline_and_the_others_are_paid(file):
    limit_s = math.ceil(slowness())
    section = {"fn": f"{file}:hangs", "isolated": True, "timeout_s": limit_s, "on_error": "zero"}
    (reward,) = build(section)
    metrics, passed = logged()
    batch = {"completions": ["a", "hang", "abc", "crash"], "answer": ["1"] * 4}
    assert reward(**batch, **passed) == [1.0, 0.0, 3.0, 0.0]
    assert metrics == {"hangs/errors": 0.5}
    (stopping,) = build(section | {"on_error": "stop"})
    text = error_of(stopping, **batch, kind=RewardError)
    said = f"rewards.0.fn=hangs: took longer than timeout_s={limit_s} on row 1 of 4, completion 'hang'; "
    assert text.startswith(said)
    batch["completions"][1] = "ok"
    assert "ended its worker process on row 3 of 4" in error_of(stopping, **batch, kind=RewardError)


SLOW_FILE = f"""
import os, sys, time
if os.getpid() != {os.getpid()}:  # where workers are made
    time.sleep({{seconds}})
    {{line}}

def hangs(completions, **kwargs):
    while completions == ["hang"]:
        pass
    return [float(len(text)) for text in completions]
"""


def test_importing_the_file_counts_in_no_limit_and_a_worker_that_is_ended_imports_nothing_again(tmp_path):
    path, limit_s = tmp_path / "slow.py", math.ceil(slowness())
    path.write_text(SLOW_FILE.format(seconds=2 * limit_s, line=""))
    (reward,) = build({"fn": f"{path}:hangs", "isolated": True, "timeout_s": limit_s, "on_error": "zero"})
    passed = {**PASSED, "answer": ["1"] * 6}
    assert reward(completions=["a"] * 6, **passed) == [1.0] * 6
    assert reward(completions=["hang", "ab", "hang", "ab", "hang", "ab"], **passed) == [0.0, 2.0] * 3
    assert reward(completions=["abc"] * 6, **passed) == [3.0] * 6


@pytest.mark.parametrize(
    ("seconds", "line", "said"),
    [
        (60, "", "importing took longer than 1 s"),
        (0, "sys.exit(0)", "running {path} failed: SystemExit(0), which would end the process"),
        (0, "import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
    ],
)
def test_a_file_that_cannot_be_imported_where_workers_are_made_is_named(tmp_path, seconds, line, said):
    path = tmp_path / "slow.py"
    path.write_text(SLOW_FILE.format(seconds=seconds, line=line))
    section = {"fn": f"{path}:hangs", "isolated": True, "on_error": "zero"}
    (reward,) = build(section | ({"import_timeout_s": 1} if seconds else {}))
    text = error_of(reward, completions=["a"], answer=["1"], **PASSED, kind=RewardError)
    assert text.startswith("rewards.0.fn=hangs: its worker processes did not start (importing ")
    assert said.format(path=path) in text
    assert text.endswith("; import less at the top of its file, or set rewards.0.import_timeout_s")


def test_what_isolation_cannot_give_is_said_before_the_run(file):
    text = error_of(build, {"fn": f"{file}:wants_state", "isolated": True})
    assert "it needs 'trainer_state', which is neither a column of the task" in text
    text = error_of(recipe_of, {"fn": "math_accuracy", "timeout_s": 3})
    assert text.startswith("rewards.0.timeout_s=3.0: only an isolated reward can be stopped at a ")


def test_trls_own_rewards_go_by_name():
    repetition, overlong, cosine = build(
        {"fn": "repetition_penalty", "args": {"ngram_size": 2, "max_penalty": -0.5}},
        {"fn": "soft_overlong", "args": {"max_completion_len": 10, "soft_punish_cache": 4}},
        {"fn": "cosine_scaled", "args": {"max_len": 4}},
    )
    batch = {
        "completions": [r"\boxed{\frac{1}{3}}", r"\boxed{\frac{1}{2}}"],
        "answer": [r"\frac{1}{3}"] * 2,
        **PASSED,
        "completion_ids": [[5, 5, 5, 5], [1, 2, 3, 4, 5, 6, 7, 8]],
    }
    assert repetition(**batch) == pytest.approx([-0.5 * (1 - 1 / 3), 0.0])
    assert overlong(**batch) == [0.0, -0.5]
    # Both have reached max_len: the cosine's end, the same for any length beyond.
    assert cosine(**batch) == pytest.approx([0.5, -0.5])
    chats = [[{"role": "assistant", "content": text}] for text in batch["completions"]]
    assert cosine(**{**batch, "completions": chats}) == cosine(**batch)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"fn": "repetition_penalty", "args": {"ngram": 2}}, "rewards.0.args.ngram=2: get_repetition_penalty_reward"),
        ({"fn": "soft_overlong"}, "rewards.0.args."),
        ({"fn": "repetition_penalty", "args": {"max_penalty": 2.0}}, "max_penalty 2.0 should not be positive"),
    ],
)
def test_what_trls_rewards_refuse_is_said_before_the_run(section, message):
    assert message in error_of(specs_of, section)


def test_golds_that_cannot_be_read_are_counted_named_and_refused_above_a_share():
    rows = [{"answer": gold} for gold in ("7", r"\frac{", "x+1", None, r"\frac{", "yes", "B", "1,000")]
    specs = specs_of({"fn": "math_accuracy"})
    assert check_golds(specs, [row for row in rows if row["answer"] != r"\frac{"], 0.01).warning is None
    text = error_of(check_golds, specs, rows, 0.01, kind=RecipeError)
    assert text.startswith("task.max_unreadable_golds=0.01: 2 of 7 golds cannot be read: '\\\\frac{'; ")
    assert check_golds(specs, rows, 0.3).warning.startswith("2 of 7 golds cannot be read: '\\\\frac{'; ")
    assert check_golds(specs_of({"fn": "think_answer_format"}), rows, 0.01) is None
    hurried = specs_of({"fn": "math_accuracy", "args": {"timeout_s": 0.3}})
    found = check_golds(hurried, [*rows, {"answer": r"\nabla \binom{10000000}{5000000}"}], 0.5)
    assert found.warning == (
        "2 of 8 golds cannot be read: '\\\\frac{'; their completions get no reward; "
        "1 of 8 golds take too long to read: "
        "'\\\\nabla \\\\binom{10000000}{5000000}'; no other writing of them is paid; by kind: other 3 of 3"
    )


def test_golds_whose_plain_writing_is_not_paid_are_counted_by_kind_and_refused_above_a_share():
    sentence = "She has 5 apples left in the basket now."
    rows = [{"answer": gold} for gold in ("7", "7", "12 apples", r"\frac{", sentence, "B", "1,000", None)]
    specs = specs_of({"fn": "math_accuracy"})
    found = check_golds(specs, rows, 0.5)
    marked = check_golds(specs, [{"answer": gold} for gold in ("so it is 2\n#### 18", [1, 2], float("nan"))], 0)
    assert [(kind.kind, kind.num_golds) for kind in marked.kinds] == [("integer", 1), ("list", 1)]
    assert {kind.kind: kind[1:] for kind in found.kinds} == {
        "integer": (3, 0, 0),
        "other": (2, 1, 1),
        "quantity": (1, 0, 0),
        "choice": (1, 0, 0),
    }
    unread = r"1 of 7 golds cannot be read: '\\frac{'"
    unpaid = f"1 of 7 golds are not paid where they are written plainly: '{sentence}' as '5'"
    assert found.warning == (
        f"{unread}; their completions get no reward; {unpaid}; a right answer to them may get 0; by kind: other 2 of 2"
    )
    assert error_of(check_golds, specs, rows, 0.2, kind=RecipeError) == (
        f"task.max_unreadable_golds=0.2: {unread}; {unpaid}; by kind: other 2 of 2; write only the answer, such as 7 "
        r"or \sqrt{2}, or raise the share"
    )


@pytest.mark.parametrize("choice", ["skip", "resample"])
def test_group_choices_need_a_judge(choice):
    data = recipe_of({"fn": "think_answer_format"}).model_dump()
    data["algorithm"]["zero_variance_groups"] = choice
    text = error_of(parse_recipe, data)
    assert text.startswith(f"algorithm.zero_variance_groups={choice}: it needs a reward that judges answers")


@pytest.mark.parametrize(("section", "key", "value"), [("algorithm", "kl_coef", 0.1), ("trl", "entropy_coef", 0.1)])
def test_skip_is_refused_where_every_completion_has_a_gradient(section, key, value):
    data = recipe_of({"fn": "math_accuracy"}).model_dump()
    data["algorithm"]["zero_variance_groups"] = "skip"
    data[section][key] = value
    text = error_of(parse_recipe, data)
    assert text.startswith(f"algorithm.zero_variance_groups=skip: with {section}.{key}, every completion adds")
