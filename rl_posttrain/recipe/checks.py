"""Checks of keys that depend on each other."""

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.distributed_section import check_distributed
from rl_posttrain.recipe.goals import check_goals
from rl_posttrain.recipe.importance import check_importance
from rl_posttrain.recipe.rollout_section import RolloutSection
from rl_posttrain.recipe.schema import EvalSection, Recipe
from rl_posttrain.rewards import REWARDS


def check_keys_together(recipe: Recipe) -> None:
    """Fail on keys that contradict each other.

    Raises:
        RecipeError: names the key, its value and what it contradicts.
    """
    if recipe.eval.is_on:
        check_evaluation(recipe.eval, recipe.rollout)
        if recipe.task.num_eval == 0:
            evaluation = recipe.eval
            steps = evaluation.every_steps
            said = f"every_steps={steps}" if steps else f"at_start={str(evaluation.at_start).lower()}"
            raise RecipeError(f"eval.{said}: task.num_eval=0 leaves no rows for it; change one of them")
    names = [reward.name for reward in recipe.rewards]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled:
        raise RecipeError(
            f"rewards={names}: {doubled} is there twice, but metrics are logged by name; keep one and set its weight"
        )
    for place, reward in enumerate(recipe.rewards):
        for key in ("timeout_s", "import_timeout_s"):
            if (limit := getattr(reward, key)) is not None and not reward.isolated:
                raise RecipeError(
                    f"rewards.{place}.{key}={limit}: only an isolated reward can be stopped at a time limit; set "
                    f"rewards.{place}.isolated=true, or leave {key} out"
                )
        if reward.range is not None and not (len(reward.range) == 2 and reward.range[0] < reward.range[1]):
            raise RecipeError(
                f"rewards.{place}.range={list(reward.range)}: it is two numbers, the lowest and the highest that the "
                "reward pays; set such as [0, 1]"
            )
    check_servers(recipe.rollout)
    _cross_check_groups(recipe)
    _cross_check_grpo(recipe)
    _cross_check_kl(recipe)
    _cross_check_critic(recipe)
    _cross_check_lora(recipe)
    _cross_check_guards(recipe)
    check_importance(recipe.rollout)
    check_distributed(recipe.distributed)
    check_goals(recipe)


def check_evaluation(evaluation: EvalSection, rollout: RolloutSection) -> None:
    """Fail on keys of an evaluation that contradict each other.

    Raises:
        RecipeError: names the key, its value and what it contradicts.
    """
    if max(evaluation.k) > evaluation.num_samples:
        raise RecipeError(
            f"eval.k={list(evaluation.k)}: pass@{max(evaluation.k)} needs {max(evaluation.k)} samples or more, but "
            f"eval.num_samples={evaluation.num_samples}; raise num_samples or lower k"
        )
    temperature = rollout.temperature if evaluation.temperature is None else evaluation.temperature
    if temperature == 0 and evaluation.num_samples > 1:
        raise RecipeError(
            f"eval.num_samples={evaluation.num_samples}: at temperature 0 every sample of a question is the same; set "
            "eval.num_samples=1, or a temperature above 0"
        )


def check_servers(rollout: RolloutSection) -> None:
    """Fail on servers without their engine, and on the engine without servers.

    Raises:
        RecipeError: names the key, its value and what it contradicts.
    """
    if rollout.engine != "vllm_server":
        if rollout.servers:
            raise RecipeError(
                f"rollout.servers={list(rollout.servers)}: rollout.engine={rollout.engine} asks no server; set "
                "rollout.engine=vllm_server, or leave servers out"
            )
        return
    if not rollout.servers:
        raise RecipeError(
            "rollout.servers=[]: rollout.engine=vllm_server needs at least one address; start launch/vllm_server.sh "
            "and set rollout.servers=[http://127.0.0.1:8000]"
        )
    if doubled := next((name for name in rollout.servers if rollout.servers.count(name) > 1), None):
        raise RecipeError(f"rollout.servers={list(rollout.servers)}: {doubled} is there twice; keep one")
    if rollout.trainer_address is not None and rollout.weight_transfer == "files":
        raise RecipeError(
            f"rollout.trainer_address={rollout.trainer_address}: with rollout.weight_transfer=files nothing "
            "listens; set gloo or nccl, or leave trainer_address out"
        )


def _cross_check_kl(recipe: Recipe) -> None:
    algorithm = recipe.algorithm
    if algorithm.kl_in == "loss" and algorithm.kl_estimator == "k1":
        raise RecipeError(
            "algorithm.kl_estimator=k1: in the loss its expected gradient is 0, so it holds the policy nowhere; set "
            "algorithm.kl_estimator=k3 or k2, or algorithm.kl_in=reward"
        )
    if algorithm.kl_in == "reward" and recipe.trl.get("multi_objective_aggregation") == "normalize_then_sum":
        raise RecipeError(
            "algorithm.kl_in=reward: with trl.multi_objective_aggregation=normalize_then_sum each reward is "
            "normalized on its own, and the penalty has none to go to; set kl_in=loss"
        )


def _cross_check_grpo(recipe: Recipe) -> None:
    """Keys that say how GRPO makes advantages would have no effect with another built-in algorithm."""
    algorithm = recipe.algorithm
    if algorithm.name not in ("ppo", "rloo", "reinforce_pp", "reinforce_pp_baseline"):
        return
    if algorithm.scale_rewards is not None:
        raise RecipeError(
            f"algorithm.scale_rewards={algorithm.scale_rewards}: only grpo divides rewards by a deviation, and "
            f"algorithm.name={algorithm.name}; leave it out, or set null"
        )
    if "multi_objective_aggregation" in recipe.trl:
        raise RecipeError(
            f"trl.multi_objective_aggregation={recipe.trl['multi_objective_aggregation']}: only grpo reads it, and "
            f"algorithm.name={algorithm.name}; leave it out"
        )


def _cross_check_critic(recipe: Recipe) -> None:
    critic, algorithm = recipe.critic, recipe.algorithm
    if critic is None:
        return
    if critic.shared_backbone and critic.model is not None:
        raise RecipeError(
            f"critic.model={critic.model}: with critic.shared_backbone=true the critic has no model of its own; keep "
            "one of the two"
        )
    if algorithm.zero_variance_groups == "skip":
        raise RecipeError(
            f"algorithm.zero_variance_groups=skip: {algorithm.name} trains its critic on every completion, so none can "
            "be left out; set keep or resample"
        )
    if critic.warmup_steps >= algorithm.num_steps:
        raise RecipeError(
            f"critic.warmup_steps={critic.warmup_steps}: the run has {algorithm.num_steps} steps, so the policy would "
            "never be updated; set fewer"
        )


def _cross_check_lora(recipe: Recipe) -> None:
    if recipe.model.lora is None:
        return
    lora = recipe.model.lora
    if lora.double_quant and lora.quantize is None:
        raise RecipeError(
            "model.lora.double_quant=true: it is about weights in 4 bits; set model.lora.quantize=nf4, or leave it out"
        )
    if lora.quantize is not None and recipe.distributed.engine == "fsdp2":
        raise RecipeError(
            f"model.lora.quantize={lora.quantize}: distributed.engine=fsdp2 makes DTensors of weights, which lose what "
            "their 4 bits stand for; set distributed.engine=deepspeed or none"
        )
    if recipe.trl.get("sync_ref_model"):
        raise RecipeError(
            "trl.sync_ref_model=true: with model.lora the reference model is the policy without its adapters, and "
            "cannot follow it; leave it out"
        )


def _cross_check_guards(recipe: Recipe) -> None:
    goes_back = [name for name, policy in recipe.guards.policies().items() if policy == "rollback"]
    if goes_back and recipe.checkpoint.every_steps == 0:
        raise RecipeError(
            f"guards.{goes_back[0]}.policy=rollback: checkpoint.every_steps=0 writes no checkpoint to go back to; set "
            "checkpoint.every_steps, or policy=stop"
        )
    teaching = recipe.guards.no_group_teaches
    if teaching.warn_steps > teaching.steps:
        raise RecipeError(
            f"guards.no_group_teaches.warn_steps={teaching.warn_steps}: the guard acts after "
            f"guards.no_group_teaches.steps={teaching.steps}; set warn_steps to as many or fewer"
        )


def _cross_check_groups(recipe: Recipe) -> None:
    algorithm, trl = recipe.algorithm, recipe.trl
    choice = algorithm.zero_variance_groups
    if choice != "keep" and algorithm.group_size == 1:
        raise RecipeError(
            f"algorithm.zero_variance_groups={choice}: with algorithm.group_size=1 every group has one completion and "
            "no variance; set keep, or a group_size of 2 or more"
        )
    if choice != "keep" and not any(reward.judges == "answer" for reward in recipe.rewards):
        judges = [name for name, built_in in REWARDS.items() if built_in.judges == "answer"]
        raise RecipeError(
            f"algorithm.zero_variance_groups={choice}: it needs a reward that judges answers, and the recipe has none; "
            f"set judges: answer for your own reward, add {' or '.join(judges)}, or set keep"
        )
    if choice != "skip":
        return
    # With these, a completion adds to the gradient even if its advantage is zero.
    needs_all = {
        "algorithm.kl_coef": algorithm.kl_coef > 0,
        f"algorithm.name={algorithm.name}": algorithm.name in ("reinforce_pp", "reinforce_pp_baseline"),
        "trl.entropy_coef": bool(trl.get("entropy_coef")),
        "trl.use_adaptive_entropy": bool(trl.get("use_adaptive_entropy")),
        "trl.top_entropy_quantile": trl.get("top_entropy_quantile", 1.0) != 1.0,
        "trl.multi_objective_aggregation": trl.get("multi_objective_aggregation") == "normalize_then_sum",
    }
    if reason := next((key for key, is_set in needs_all.items() if is_set), None):
        raise RecipeError(
            f"algorithm.zero_variance_groups=skip: with {reason}, every completion adds to the gradient; set keep"
        )
