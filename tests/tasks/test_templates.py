import pytest

from rl_posttrain.errors import RecipeError
from rl_posttrain.tasks.template_files import read_system
from rl_posttrain.tasks.templates import Asked, Example, load_template


def render(template, question, **parts):
    return load_template(str(template))(Asked(question, **parts))


EXAMPLE = Example("What is 1 + 1?", "1 + 1 = 2", "2")


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


def test_qwen_boxed_is_the_prompt_of_qwen_math_unless_there_is_a_system_message():
    user = {"role": "user", "content": "Why?"}
    boxed = "Please reason step by step, and put your final answer within \\boxed{}."
    assert render("qwen_boxed", "Why?", request="Shout.") == [{"role": "system", "content": boxed}, user]
    assert render("qwen_boxed", "Why?", system="Box it.") == [{"role": "system", "content": "Box it."}, user]
    assert render("qwen_boxed", "Why?", system="") == [user]


@pytest.mark.parametrize(("name", "reason"), [("r1zero", "did you mean 'r1_zero'?"), ("my.md", "ends in .txt or .j")])
def test_unknown_template_names_the_nearest(name, reason):
    with pytest.raises(RecipeError) as caught:
        load_template(name)
    assert str(caught.value).startswith(f"task.template={name}: no template of that name; ")
    assert reason in str(caught.value)


def test_examples_stand_solved_before_the_question_in_each_templates_form():
    assert render("qa", "What is 3 + 4?", examples=[EXAMPLE]) == "Q: What is 1 + 1?\nA: 2\n\nQ: What is 3 + 4?\nA:"
    tagged = render("r1_zero", "What is 3 + 4?", examples=[EXAMPLE])
    assert "Assistant: <think> 1 + 1 = 2 </think> <answer> 2 </answer>\n\nUser: What is 3 + 4?" in tagged
    chat = render("chat", "What is 3 + 4?", request="Only the number.", examples=[EXAMPLE])
    assert [message["content"] for message in chat] == [
        "What is 1 + 1? Only the number.", "2", "What is 3 + 4? Only the number.",
    ]  # fmt: skip
    boxed = render("qwen_boxed", "What is 3 + 4?", examples=[EXAMPLE])
    assert [message["role"] for message in boxed] == ["system", "user", "assistant", "user"]
    assert boxed[2]["content"] == "1 + 1 = 2\n\\boxed{2}"


def test_a_system_message_is_a_message_of_a_chat_and_stands_in_front_of_text():
    assert render("chat", "Why?", system="Think.")[0] == {"role": "system", "content": "Think."}
    assert render("qa", "Why?", system="Think.", examples=[EXAMPLE]).startswith("Think.\n\nQ: What is 1 + 1?")


def test_a_text_file_fills_in_question_and_system_and_leaves_other_braces(tmp_path):
    path = tmp_path / "my.txt"
    path.write_text("{system} Box it: \\boxed{}, {x}.\n{question} {request}\n", encoding="utf-8")
    filled = render(path, "Why {system}?", system="Sé brief {question}.", request="Now!")
    assert filled == "Sé brief {question}. Box it: \\boxed{}, {x}.\nWhy {system}? Now!"
    path.write_text("{question}\nA:", encoding="utf-8")
    assert render(path, "Why?") == "Why?\nA:"
    assert render(path, "Why?", system="Think.") == "Think.\n\nWhy?\nA:"  # no place for it


def test_a_jinja_file_has_the_columns_in_a_sandbox(tmp_path):
    path = tmp_path / "my.jinja"
    path.write_text("{% if level > 3 %}Hard: {% endif %}{{ question }}\n", encoding="utf-8")
    assert render(path, "{{ level }}?", columns={"level": 5}) == "Hard: {{ level }}?"
    assert render(path, "Why?", columns={"level": 1}, system="Think.") == "Think.\n\nWhy?"
    path.write_text("{{ system }}|{{ question }}|{% for e in examples %}{{ e.answer }}{% endfor %}", encoding="utf-8")
    assert render(path, "Why?", system="Think.", examples=[EXAMPLE]) == "Think.|Why?|2"
    path.write_text("{{ question }}{{ level }}", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"'level' is undefined; the row has the columns answer"):
        render(path, "Why?", columns={"answer": "4"})
    path.write_text("{{ question.__class__ }}", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"access to attribute '__class__' of 'str' object is unsafe"):
        render(path, "Why?")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("no.txt", b"What?", "has {question} 0 times; write it once"),
        ("two.txt", b"{question} {question}", "has {question} 2 times; write it once"),
        ("latin.txt", "{question} é".encode("latin-1"), "not UTF-8 at byte 11; save it as UTF-8"),
        ("no.jinja", b"{{ answer }}", "has no {{ question }}; write it once"),
        ("broken.jinja", b"{% if %}{{ question }}", "no jinja template (Expected an expression"),
        ("missing.txt", None, "no such file; "),
    ],
)
def test_a_file_that_is_no_template_is_one_line(tmp_path, name, content, reason):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load_template(str(path))
    assert str(caught.value).startswith(f"task.template={path}: {reason}")
    assert "\n" not in str(caught.value)


def test_a_system_message_is_a_text_or_a_file(tmp_path):
    assert read_system("Answer in one word.") == "Answer in one word."
    (tmp_path / "system.txt").write_text("Think first.\nThen answer.\n", encoding="utf-8")
    assert read_system(str(tmp_path / "system.txt")) == "Think first.\nThen answer."
    with pytest.raises(RecipeError, match=r"task\.system=.*none\.txt: no such file"):
        read_system(str(tmp_path / "none.txt"))
