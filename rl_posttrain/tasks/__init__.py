"""Tasks: functions that return questions whose answers can be checked. One task a file; rewards do not belong here.

A task is called with the options of the recipe's `task` section that it names, and with `seed` where it names that. It
returns `rows.TaskRows`. `prepare.py` makes prompts of the questions.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class BuiltInTask:
    """A task that comes with the project.

    Attributes:
        location: ``package.module:function``.
        version: changes whenever the same options give other rows; results record it.
        template: what `task.template` is where a recipe says nothing; None: the rows have their prompts ready.
        rewards: names of the rewards that judge it, where nothing else is said.
    """

    location: str
    version: str
    template: str | None
    rewards: tuple[str, ...]


_MATH = ("math_accuracy",)

TASKS = {
    "arithmetic": BuiltInTask("rl_posttrain.tasks.arithmetic:arithmetic", "1", "qa", _MATH),
    "countdown": BuiltInTask("rl_posttrain.tasks.countdown:countdown", "1", "r1_zero", ("countdown_equation",)),
    "reasoning_gym": BuiltInTask(
        "rl_posttrain.tasks.reasoning_gym:reasoning_gym", "1", "r1_zero", ("reasoning_gym_score",)
    ),
    "gsm8k": BuiltInTask("rl_posttrain.tasks.gsm8k:gsm8k", "1", "r1_zero", _MATH),
    "math": BuiltInTask("rl_posttrain.tasks.math:math", "1", "qwen_boxed", _MATH),
    "aime": BuiltInTask("rl_posttrain.tasks.aime:aime", "1", "qwen_boxed", _MATH),
    "amc": BuiltInTask("rl_posttrain.tasks.amc:amc", "1", "qwen_boxed", _MATH),
    "minerva": BuiltInTask("rl_posttrain.tasks.minerva:minerva", "1", "qwen_boxed", _MATH),
    "olympiad_bench": BuiltInTask("rl_posttrain.tasks.olympiad_bench:olympiad_bench", "1", "qwen_boxed", _MATH),
    "dapo_math": BuiltInTask("rl_posttrain.tasks.dapo_math:dapo_math", "1", "qwen_boxed", _MATH),
    "deepscaler": BuiltInTask("rl_posttrain.tasks.deepscaler:deepscaler", "1", "qwen_boxed", _MATH),
    "file": BuiltInTask("rl_posttrain.tasks.file:file", "1", None, _MATH),
}
