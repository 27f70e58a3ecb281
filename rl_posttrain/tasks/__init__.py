"""Tasks: functions that return questions with checkable answers, each row as its reward needs it.

A task is called with `seed` and the options of the recipe's task section, and returns `rows.TaskRows`. A row has
`prompt` (text, or chat messages), `answer` (text; the gold) and the columns that the task's own reward takes by name.
"""

TASKS = {
    "arithmetic": "rl_posttrain.tasks.arithmetic:arithmetic",
    "countdown": "rl_posttrain.tasks.countdown:countdown",
    "gsm8k": "rl_posttrain.tasks.gsm8k:gsm8k",
}
