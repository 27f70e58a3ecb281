"""Tasks: functions that return questions whose answers can be checked. One task a file; rewards do not belong here.

A task is called with `seed` and the options of the recipe's `task` section, and returns `rows.TaskRows`. A row has
`prompt` (text or chat messages), `answer` (the gold answer, text) and the other columns that the task's reward takes by
name.
"""

TASKS = {
    "arithmetic": "rl_posttrain.tasks.arithmetic:arithmetic",
    "countdown": "rl_posttrain.tasks.countdown:countdown",
    "gsm8k": "rl_posttrain.tasks.gsm8k:gsm8k",
}
