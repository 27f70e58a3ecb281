"""Which column of another program's log is the reward, which is the step, and which is a time of day.

`python -m rl_posttrain.runs.reward_names` prints the table of docs/foreign_runs.md.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class RewardName:
    """A name that the reward has in logs.

    Attributes:
        name: in lower case; ``train/`` before it may be there or not.
        program: who writes it.
        meaning: what it is, for the documentation.
        per_episode: whether a step may log it several times, once for each episode that ended there.
    """

    name: str
    program: str
    meaning: str
    per_episode: bool = False


# In order: the first one that a log has is its reward.
REWARD_NAMES: tuple[RewardName, ...] = (
    RewardName("reward", "this project, TRL (GRPO, RLOO), OpenRLHF, nanochat", "mean reward of the step"),
    RewardName("critic/score/mean", "verl", "mean score, without a KL penalty"),
    RewardName("critic/rewards/mean", "verl", "mean reward, with the KL penalty where there is one"),
    RewardName("reward/avg_raw_reward", "SkyRL", "mean reward"),
    RewardName("reward/all/mean", "prime-rl", "mean reward over all environments"),
    RewardName("reward/mean", "prime-rl, older versions", "mean reward"),
    RewardName("env/all/reward/total", "tinker-cookbook", "mean reward over all environments"),
    RewardName("objective/rlhf_reward", "TRL (PPO, RLOO before 0.22)", "score less the KL penalty"),
    RewardName("objective/scores", "TRL (PPO, RLOO before 0.22)", "mean score of the reward model"),
    RewardName("env/reward_mean", "TRL before 0.12", "mean reward"),
    RewardName("rewards/mean", "TRL and others", "mean reward"),
    RewardName("rollout/reward_mean", "OpenRLHF from 0.10", "mean reward of all samples of the step"),
    RewardName("rollout/raw_reward", "slime", "mean reward, before normalization"),
    RewardName("rollout/ep_rew_mean", "Stable-Baselines3", "mean return of the latest episodes"),
    RewardName("charts/episodic_return", "CleanRL", "return of one episode", per_episode=True),
    RewardName("episodic_return", "CleanRL", "return of one episode", per_episode=True),
    RewardName("env_runners/episode_return_mean", "RLlib", "mean return of the latest episodes"),
    RewardName("episode_reward_mean", "RLlib, older versions", "mean return of the latest episodes"),
    RewardName("mean_reward", "others", "mean reward"),
    RewardName("reward_mean", "others", "mean reward"),
    RewardName("avg_reward", "others", "mean reward"),
    RewardName("episode_reward", "others", "return of one episode", per_episode=True),
    RewardName("episode_return", "others", "return of one episode", per_episode=True),
    RewardName("eval/reward", "TRL, where no training reward is logged", "mean reward of the evaluation"),
    RewardName("eval_reward", "TRL, where no training reward is logged", "mean reward of the evaluation"),
)
# In order: the first one that every row with a reward has is the step.
STEP_NAMES = (
    "step", "global_step", "training/global_step", "trainer/global_step", "_step", "iteration", "iter", "update",
    "timesteps", "total_timesteps",
)  # fmt: skip
# Seconds since 1970. Where a log has no seconds of its own, they are counted from its first row.
CLOCK_NAMES = ("wall time", "wall_time", "_timestamp", "timestamp", "time")


def plain(name: str) -> str:
    """A column's name as it is looked up here: in lower case, and without ``train/``."""
    return name.strip().lower().removeprefix("train/")


def markdown_table() -> str:
    """The table of docs/foreign_runs.md."""
    lines = ["| name | written by | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{known.name}` | {known.program} | {known.meaning} |" for known in REWARD_NAMES]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown_table(), end="")
