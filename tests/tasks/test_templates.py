import pytest

from rl_posttrain.errors import RecipeError
from rl_posttrain.tasks.templates import Example, render


def test_qa_is_the_question_and_nothing_else():
    assert render("qa", "What is 3 + 4?", request="Shout.") == "Q: What is 3 + 4?\nA:"


def test_chat_is_one_user_message_with_the_request():
    assert render("chat", "What is 3 + 4?", request="Answer with the final number.") == [
        {"role": "user", "content": "What is 3 + 4? Answer with the final number."}
    ]
    assert render("chat", "Why?")[0]["content"] == "Why?"


def test_r1_zero_names_all_tags_and_leaves_opening_them_to_the_model():
    prompt = render("r1_zero", "What is {3} + 4?")
    assert all(tag in prompt for tag in ("<think>", "</think>", "<answer>", "</answer>"))
    assert prompt.endswith("User: What is {3} + 4?\nAssistant:")


def test_unknown_template_names_the_nearest():
    with pytest.raises(RecipeError, match=r"task\.template=r1zero: .*did you mean 'r1_zero'\?"):
        render("r1zero", "Why?")


def test_examples_stand_solved_before_the_question_in_each_templates_form():
    example = Example("What is 1 + 1?", "1 + 1 = 2", "2")
    assert render("qa", "What is 3 + 4?", examples=[example]) == "Q: What is 1 + 1?\nA: 2\n\nQ: What is 3 + 4?\nA:"
    text = render("r1_zero", "What is 3 + 4?", examples=[example])
    solved = "User: What is 1 + 1?\nAssistant: <think> 1 + 1 = 2 </think> <answer> 2 </answer>"
    assert text == render("r1_zero", "What is 3 + 4?").replace("User:", f"{solved}\n\nUser:")
    messages = render("chat", "What is 3 + 4?", request="Only the number.", examples=[example])
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"] == "2"
