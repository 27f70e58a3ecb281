import hashlib

import pytest

from rl_posttrain.errors import RecipeError
from rl_posttrain.tasks.prepare import render_rows, rows_digest
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
