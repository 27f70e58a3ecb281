"""Worker processes of rewards start in the background, where a reward will need them, and nowhere else."""

from test_rewards import specs_of

from rl_posttrain.rewards import by_workers, reasoning_gym
from rl_posttrain.scoring import isolated
from rl_posttrain.scoring.warm_start import start_workers

ISOLATED = {"fn": "think_answer_format", "isolated": True}


def test_workers_start_where_a_reward_will_need_them():
    pools = [by_workers.pool(), reasoning_gym.pool(), isolated.pool(specs_of(ISOLATED)[0])]

    def started(section, *golds, **columns) -> list[bool]:
        for pool in pools:
            pool.close()
        start_workers(specs_of(section), [{"answer": gold, **columns} for gold in golds])
        found = [pool.server_id is not None for pool in pools]
        assert all(pool.process_ids == [] for pool in pools)
        return found

    try:
        assert started({"fn": "math_accuracy"}, "7", "1/2", None, "yes", "(B)") == [False, False, False]
        assert started({"fn": "math_accuracy"}, "7", "x+1") == [True, False, False]
        for_others = {"fn": "math_accuracy", "tasks": ["gsm8k"]}
        assert started(for_others, "x+1", task="math") == [False, False, False]
        assert started({"fn": "think_answer_format"}, "x+1") == [False, False, False]
        assert started({"fn": "reasoning_gym_score"}, None) == [False, True, False]
        assert started(ISOLATED, "7") == [False, False, True]
    finally:
        for pool in pools:
            pool.close()
