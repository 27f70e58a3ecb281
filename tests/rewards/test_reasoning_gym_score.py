"""reasoning-gym's own scorers as a reward: what they pay, and what a completion cannot make them do."""

import pytest
from conftest import slowness

from rl_posttrain.errors import RecipeError
from rl_posttrain.rewards import reasoning_gym_score
from rl_posttrain.rewards.gym_datasets import from_text, make_dataset, to_text


def entry(dataset, metadata=None, answer="", question="?", config=None):
    item = {"dataset": dataset, "config": config or {}, "question": question, "answer": answer, "metadata": metadata}
    return to_text(item)


def made(dataset, index=0, **config):
    """An entry that reasoning-gym made, and its answer."""
    item = make_dataset(dataset, config, seed=3, size=20)[index]
    return to_text({"dataset": dataset, "config": config, **item}), item["answer"]


COUNTDOWN = entry("countdown", {"numbers": [3, 5, 7], "target": 22})


def test_the_data_sets_own_scorer_pays():
    # countdown's own scorer: 1.0 for a solution, 0.05 where the value or the numbers are others, 0.01 else.
    answers = ["(7 * 5) - 3 - 10", "3 * 5 + 7", "7+5*3", "3 + 5 + 7", "22", "seven", "22 = 22"]
    completions = [f"<think>hm</think> <answer>{answer}</answer>" for answer in answers]
    assert reasoning_gym_score(completions, [COUNTDOWN] * 7) == [0.05, 1.0, 1.0, 0.05, 0.05, 0.01, 0.01]
    # The scorer of most data sets: 1.0 for the very text, else the answer's share of the text, where it is in it.
    plain = entry("caesar_cipher", {}, answer="ABCD")
    assert reasoning_gym_score(["<answer>ABCD</answer>", "ABCD EFG", "ABC"], [plain] * 3) == [1.0, 0.5, 0.0]


def test_the_answer_is_read_from_the_first_place_that_there_is():
    completions = [
        "<answer>3*5+7</answer> \\boxed{1}",
        "\\boxed{3*5+7} or 9",
        "3*5+7",
        [{"role": "assistant", "content": "<answer>3*5+7</answer>"}],
        "<think>3*5+7",
        "<think><answer>3*5+7</answer></think>",
        "",
        "<answer></answer>",
    ]
    assert reasoning_gym_score(completions, [COUNTDOWN] * 8) == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert reasoning_gym_score(["<answer>3*5+7</answer>"], [COUNTDOWN], answer_in=["boxed"]) == [0.0]


def test_a_row_of_another_task_is_not_judged_and_the_ways_are_logged():
    logged = {}
    rewards = reasoning_gym_score(
        ["3*5+7", "3*5+7", "", "x" * 30_000], [None, *[COUNTDOWN] * 3], log_metric=logged.__setitem__
    )
    assert rewards == [None, 1.0, 0.0, 0.0]
    assert logged == {f"reasoning_gym_score/{way}": share for way, share in
                      {"scored": 0.25, "failed": 0.0, "timeout": 0.0, "missing": 0.5}.items()}  # fmt: skip
    assert reasoning_gym_score(["3*5+7"], [None], log_metric=logged.__setitem__) == [None]


def test_the_config_reaches_the_scorer():
    # The scorer of puzzle24 refuses numbers beyond the config's largest.
    small, large = (entry("puzzle24", {}, config={"max_value": value}) for value in (8, 9))
    assert reasoning_gym_score(["9 + 8 + 8 - 1"] * 2, [small, large]) == [0.01, 1.0]


def test_a_scorer_that_raises_or_never_ends_pays_nothing_and_the_others_are_paid():
    logged = {}
    rewards = reasoning_gym_score(
        ["9**9**9**9**9", "3*5+7", "two", "9**9**9**9**9"],
        [COUNTDOWN, COUNTDOWN, made("prime_factorization")[0], COUNTDOWN],
        timeout_s=2 * slowness(),
        log_metric=logged.__setitem__,
    )
    assert rewards == [0.0, 1.0, 0.0, 0.0]
    assert logged["reasoning_gym_score/timeout"] == 0.5
    assert logged["reasoning_gym_score/failed"] == 0.25


# Every data set whose scorer evaluates the answer as Python.
EVALUATES = [
    "binary_matrix", "n_queens", "spiral_matrix", "string_insertion", "countdown", "puzzle24", "simple_integration",
    "intermediate_integration", "polynomial_multiplication",
]  # fmt: skip


@pytest.mark.parametrize("dataset", EVALUATES)
def test_no_code_of_an_answer_runs(dataset, tmp_path):
    mark = tmp_path / "mark"
    spelled = "+".join(f"chr({ord(character)})" for character in f"open('{mark}', 'w')")
    answers = [
        f"open('{mark}', 'w')", f"open({str(mark)!r}, 'w').name", f"exec({spelled})", f"eval({spelled})",
        f"__import__('pathlib').Path('{mark}').touch()", f"[open('{mark}', 'w')]", f"S({spelled})",
        f"sympify({spelled})", f"(lambda: open('{mark}', 'w'))()", f"x.__class__.__base__ or open('{mark}', 'w')",
        f"parse_expr({spelled})", f"lambdify(x, {spelled})(1)", f"N({spelled})", f"Function({spelled})(x)",
    ]  # fmt: skip
    row, answer = made(dataset)
    rewards = reasoning_gym_score([f"<answer>{text}</answer>" for text in [*answers, answer]], [row] * 15)
    assert not mark.exists()
    assert max(rewards[:-1]) < 0.1
    assert rewards[-1] == 1.0


def test_an_integral_that_repeats_the_question_is_not_paid():
    row, answer = made("simple_integration")
    integrand = from_text(row)["metadata"]["integrand"]
    variable = from_text(row)["metadata"]["variable"]
    assert reasoning_gym_score([f"Integral({integrand}, {variable})", answer], [row] * 2) == [0.0, 1.0]


@pytest.mark.parametrize(
    "value",
    [
        {"moves": [("a", 1), (2.5, None)], 3: {"x": True}, (1, 2): "pair"},
        {"tuple": [1, 2]},
        {"pairs": [[1, 2]]},
        {"pairs": (), "other": [{}, [], ()]},
    ],
)
def test_an_entry_as_text_keeps_tuples_and_keys_that_are_no_text(value):
    assert repr(from_text(to_text(value))) == repr(value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"answer_in": ["last_expression"]}, r"rewards\.args\.answer_in=last_expression: no such place"),
        ({"timeout_s": 0}, r"rewards\.args\.timeout_s=0: "),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(RecipeError, match=message):
        reasoning_gym_score(["7"], [COUNTDOWN], **arguments)
