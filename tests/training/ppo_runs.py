"""Runs of PPO one after another in the processes that torchrun starts; test_ppo_runs.py does that.

python ppo_runs.py RECIPE CASES     CASES: JSON, by name of a run its overrides

Every completion is drawn on its own, from a seed of its prompt and its number in the group, so that any number of
processes draws the same ones from the same weights. Each run leaves its checkpoints, and in `engine.json` whether the
engine had the weights of the policy after the last step.
"""

import hashlib
import json
import sys
from collections import Counter
from pathlib import Path

import torch

from rl_posttrain import load_recipe, train
from rl_posttrain.rollout.transformers import TransformersEngine
from rl_posttrain.training.loop import PolicyTrainer

together, recorded = TransformersEngine.generate, PolicyTrainer.log


def one_by_one(self, prompts, seeds, sampling):
    drawn, numbers = [], Counter()
    for prompt in prompts:
        place = f"{prompt} {numbers[tuple(prompt)]}"
        numbers[tuple(prompt)] += 1
        drawn += together(self, [prompt], [int(hashlib.sha256(place.encode()).hexdigest()[:8], 16)], sampling)
    return drawn


def and_compare_the_engine(self, logs, start_time=None):
    """After the last step: sync, and compare every weight of a vLLM engine with the policy's."""
    if "loss" in logs and self.steps_done == self._recipe.algorithm.num_steps and self.use_vllm:
        sys.path.insert(0, str(Path(__file__).parents[1] / "rollout"))
        from test_vllm import engine_weights

        self.rollouts._sync(self.steps_done)
        held = engine_weights(self.rollouts._engine)
        wanted = {name: tensor.to(torch.bfloat16).cpu().clone() for name, tensor in self.policy.weights()}
        wanted.setdefault("lm_head.weight", wanted["model.embed_tokens.weight"])
        equal = held.keys() == wanted.keys() and all(torch.equal(held[name], wanted[name]) for name in wanted)
        rank = self.accelerator.process_index
        (self._recipe.run_path / f"engine-{rank}.json").write_text(json.dumps({"equal": equal, "names": len(wanted)}))
    recorded(self, logs, start_time)


if __name__ == "__main__":
    _, recipe, cases = sys.argv
    TransformersEngine.generate = one_by_one
    PolicyTrainer.log = and_compare_the_engine
    for name, overrides in json.loads(cases).items():
        train(load_recipe(recipe, [f"run.name={name}", *overrides]))
