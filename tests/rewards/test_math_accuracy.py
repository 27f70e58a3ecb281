import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_posttrain.errors import RecipeError
from rl_posttrain.rewards import REWARDS, math_accuracy
from rl_posttrain.rewards.completions import last_boxed


def score(completion, gold, **options):
    (reward,) = math_accuracy([completion], [gold], **options)
    return reward


@pytest.mark.parametrize(
    ("completion", "gold", "reward"),
    [
        # Where the answer is: the first place present decides, whatever stands in the others.
        (" 7", "7", 1.0),
        ("7\nQ: What is 3 + 5?\nA: 8", "7", 0.0),
        ("7\nQ: What is 3 + 5?\nA: 8", "8", 1.0),
        (r"\boxed{7} or maybe 8", "7", 1.0),
        (r"\boxed{8} <answer>7</answer> #### 7, so 7", "7", 0.0),
        (r"\boxed{5} then \boxed{7}", "7", 1.0),
        (r"\boxed{7} then \boxed{5", "7", 1.0),
        (r"\boxed{\boxed{7}}", "7", 1.0),
        (r"{ \boxed {7}", "7", 1.0),
        ("<answer>3</answer> <answer> 7 </answer> 9", "7", 1.0),
        ("<answer>7</answer> </answer>", "7", 1.0),
        ("<answer>7", "7", 1.0),  # no tag that is closed: the last number
        ("</answer>7<answer>", "7", 1.0),
        ("#### 5\n#### 7\nQ: 12?", "7", 1.0),
        ("7 ####", "7", 0.0),
        ("7 <answer></answer>", "7", 0.0),
        ("no number here", "7", 0.0),
        ("", "7", 0.0),
        # Numbers by value.
        ("3 - 5 = -2", "-2", 1.0),
        ("5-2", "-2", 0.0),
        ("5-2", "2", 0.0),  # a whole expression, never a piece of one: the difference is left undone
        ("it is \N{MINUS SIGN}2.", "-2", 1.0),
        ("a total of 1,234,567 in all", "1234567", 1.0),
        ("#### $1,000.00", "1000", 1.0),
        (r"\boxed{1{,}000}", "1,000", 1.0),
        ("1,2", "12", 0.0),
        ("007", "7", 1.0),
        ("0.50", ".5", 1.0),
        ("is .5", "0.5", 1.0),
        ("-$5", "-5", 1.0),
        ("1e3", "1000", 1.0),
        (r"\boxed{1.2 \times 10^{3}}", "1200", 1.0),
        (r"\boxed{10^6}", "1000000", 1.0),
        (r"\boxed{\frac{1}{2}}", "0.5", 1.0),
        (r"\boxed{-1\dfrac{1}{2}}", "-1.5", 1.0),
        ("so 3/4", "0.75", 1.0),
        ("so 2/4", "1/2", 1.0),
        ("0.333333", "1/3", 0.0),  # near is not equal
        ("0.1", "0.1000000000000000000000001", 0.0),
        ("50%", "0.5", 1.0),
        ("50%", "50", 1.0),
        ("50", "50%", 1.0),
        ("0.5", "50%", 1.0),
        ("5%", "50%", 0.0),
        # A gold number wants one number: no sum left undone, no list of guesses.
        ("<answer>3 + 4</answer>", "7", 0.0),
        ("<answer>3 + 4 = 7</answer>", "7", 1.0),
        ("<answer>x = 7</answer>", "7", 1.0),
        (r"\boxed{3 \cdot 4}", "12", 0.0),
        (r"\boxed{\frac{8}{4}}", "2", 0.0),
        ("<answer>8 / 4</answer>", "2", 0.0),
        ("8/4", "2", 0.0),
        (r"\boxed{6, 7}", "7", 0.0),
        (r"\boxed{6 \text{ or } 7}", "7", 0.0),
        ("<answer>7 apples</answer>", "7", 1.0),
        (r"\boxed{7 \text{ cm}}", "7", 1.0),
        (r"\boxed{7^\circ}", "7", 1.0),
        (r"\boxed{x^2}", "2", 0.0),
        (r"\boxed{7/0}", "7", 0.0),
        # Other golds, by math-verify.
        (r"\boxed{1 + x}", "x+1", 1.0),
        (r"\boxed{x - 1}", "x+1", 0.0),
        (r"\boxed{2\sqrt{3}}", r"\sqrt{12}", 1.0),
        (r"\boxed{\{2, 1\}}", r"\{1,2\}", 1.0),
        (r"<answer>\( \frac{\pi}{2} \)</answer>", r"$\frac{1}{2}\pi$", 1.0),
        (r"\boxed{(1, 3)}", "(1,2)", 0.0),
        (r"\boxed{8}", "10^6", 0.0),
        (r"\boxed{1000000}", "10^6", 1.0),
    ],
)
def test_reward(completion, gold, reward):
    assert score(completion, gold) == reward


def test_only_the_places_asked_for_are_read_in_their_order():
    text = r"\boxed{1} <answer>2</answer> #### 3"
    for places, found in [(["answer_tag", "boxed"], "2"), (["gsm8k"], "3"), (["boxed"], "1")]:
        assert [score(text, gold, answer_in=places) for gold in "123"] == [float(gold == found) for gold in "123"]
    assert score("7", "7", answer_in=["boxed"]) == 0.0
    with pytest.raises(RecipeError, match=r"answer_in=box: .*boxed"):
        score("7", "7", answer_in=["box"])


def test_no_gold_gives_none_and_batches_keep_their_order():
    chat = [{"role": "user", "content": "9"}, {"role": "assistant", "content": "It is 7"}]
    tool_call = [{"role": "assistant", "content": None}]
    assert math_accuracy(
        completions=["7", chat, "7", "8", tool_call, [], "7"],
        answer=[None, "7", " ", "7", "7", "7", 7],
        prompts=["a column nobody reads"] * 7,
    ) == [None, 1.0, None, 0.0, 0.0, 0.0, 1.0]


@settings(max_examples=50)
@given(st.text(max_size=60), st.sampled_from(["boxed", "tag", "bare"]), st.sampled_from(["7", "x+1"]))
def test_no_text_makes_it_raise(text, place, gold):
    completion = {"boxed": rf"\boxed{{{text}}}", "tag": f"<answer>{text}</answer>", "bare": text}[place]
    assert score(completion, gold) in (0.0, 1.0)


@given(st.integers(-(10**12), 10**12), st.text(alphabet="ab {}\n.", max_size=20))
def test_an_integer_is_found_and_no_other_is_accepted(value, before):
    for written in (str(value), f"{value:,}", f"{value}.0", rf"\boxed{{{value}}}", f"<answer>{value}</answer>"):
        completion = f"{before} {written}"
        assert score(completion, str(value)) == 1.0
        assert score(completion, str(value + 1)) == 0.0


def test_expressions_are_compared_outside_the_main_thread_too():
    rewards = []
    thread = threading.Thread(
        target=lambda: rewards.extend(math_accuracy([r"\boxed{1+x}", r"\boxed{x}", "it is 7"], ["x+1", "x+1", "7"]))
    )
    thread.start()
    thread.join()
    assert rewards == [1.0, 0.0, 1.0]


def test_finders():
    assert last_boxed(r"\boxed{\frac{1}{2}} \boxed{a\}b} {\boxed{c") == r"a\}b"
    assert last_boxed("boxed{1}") is None


def test_tables_name_the_functions_and_import_stays_light():
    program = (
        "import sys; from rl_posttrain import rewards; from rl_posttrain.plugins import load_object\n"
        "for name, own in rewards.REWARDS.items():\n"
        "    assert own.is_factory or load_object(own.location, table={}, key='k') is getattr(rewards, name), name\n"
        "assert rewards.math_accuracy(['7'], ['7']) == [1.0]\n"
        "assert not {'torch', 'sympy', 'math_verify', 'trl', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    judging = {name: own.judges for name, own in REWARDS.items() if own.judges}
    assert judging == {
        "math_accuracy": "answer",
        "countdown_equation": "answer",
        "think_answer_format": "form",
        "reasoning_gym_score": "answer",
    }
    assert all(REWARDS[name].range == (0.0, 1.0) for name in judging)
