import hashlib

import pytest

from rl_posttrain.errors import RecipeError
from rl_posttrain.tasks.prepare import check_returned, render_rows, rows_digest
from rl_posttrain.tasks.rows import TaskRows
from rl_posttrain.tasks.templates import Example

ROW = {"question": "What is 1 + 2?", "answer": "3", "level": 4}


def test_questions_become_prompts_and_keep_their_columns():
    rows = TaskRows([ROW], [ROW], request="Say a number.", examples=[Example("What is 0 + 0?", "none", "0")])
    made = render_rows(rows, template="chat", system="Be brief.")
    asked = ["Be brief.", "What is 0 + 0? Say a number.", "0", "What is 1 + 2? Say a number."]
    roles = ["system", "user", "assistant", "user"]
    prompt = [{"role": role, "content": text} for role, text in zip(roles, asked, strict=True)]
    assert made.train == made.eval == [{"prompt": prompt, **ROW}]
    assert made.template == "chat"
    assert render_rows(TaskRows([ROW], []), template="qa", system="Be brief.").train[0]["prompt"] == (
        "Be brief.\n\nQ: What is 1 + 2?\nA:"
    )


def test_a_ready_prompt_stays_and_takes_no_template():
    rows = TaskRows([{"prompt": "1 + 2 =", "answer": "3"}], [])
    assert render_rows(rows, template=None, system=None) == rows
    with pytest.raises(RecipeError, match=r"task\.template=qa: .*prompts ready.*leave task\.template out"):
        render_rows(rows, template="qa", system=None)
    with pytest.raises(RecipeError, match=r"task\.system=Think\.: .*prompts ready"):
        render_rows(rows, template=None, system="Think.")


def test_the_digest_is_over_columns_and_the_order_of_rows():
    one, two = {"answer": "é", "n": 1}, {"n": 2, "answer": None}
    written = '{"answer": "é", "n": 1}\n{"answer": null, "n": 2}\n'
    assert rows_digest([one, two]) == hashlib.sha256(written.encode()).hexdigest()
    assert rows_digest([dict(reversed(one.items())), two]) == rows_digest([one, two]) != rows_digest([two, one])


CHAT = [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ([{"question": "a"}], "returned a value of the type list; return TaskRows(train=[...], eval=[...])"),
        (None, "returned None; return TaskRows"),
        ((row for row in ()), "returned a value of the type generator; return TaskRows"),
        (TaskRows(({"question": "a"} for _ in "ab"), []), "train is of the type generator; give TaskRows a list"),
        (TaskRows([], None), "eval is of the type NoneType; give TaskRows a list"),
        (TaskRows([{"question": "a"}, "b"], []), "row 2 of train is of the type str; a row is a dict"),
        (TaskRows([{"question": "a"}, {1: "b"}], []), "row 2 of train is of the type dict; a row is a dict from names"),
        (TaskRows([{"answer": "1"}], []), "row 1 of train has neither `question`, a text, nor `prompt` (answer)"),
        (TaskRows([{"question": " \n"}], []), "row 1 of train has an empty `question`; write one"),
        (TaskRows([{"question": 7}], []), "row 1 of train has a `question` of the type int (7); it is a text"),
        (TaskRows([{"question": CHAT}], []), "row 1 of train has a `question` of the type list"),
        (TaskRows([], [{"prompt": ""}]), "row 1 of eval has an empty `prompt`"),
        (TaskRows([{"prompt": None}], []), "row 1 of train has neither `question`"),
        (
            TaskRows([{"prompt": []}], []),
            "row 1 of train has a `prompt` of the type list ([]); it is a text",
        ),
        (TaskRows([{"prompt": [{"role": "user"}]}], []), "row 1 of train has a `prompt` of the type list"),
        (TaskRows([{"prompt": [CHAT[0] | {"content": " "}]}], []), "row 1 of train has an empty message at its end"),
        (
            TaskRows([{"prompt": "a"}], [{"prompt": CHAT}]),
            "row 1 of train has a `prompt` of text and row 1 of eval",
        ),
        (TaskRows([{"question": "a"}, {"prompt": "a"}], []), "row 1 of train has a `question` and row 2 of train has"),
    ],
)
def test_what_a_task_must_not_return_is_named_with_its_row(made, reason):
    with pytest.raises(RecipeError) as caught:
        check_returned(made, "mine.py:task")
    assert str(caught.value).startswith(f"task.name=mine.py:task: {reason}")
    assert "; " in str(caught.value)
