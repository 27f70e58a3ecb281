"""From a recipe to a finished run. Read it top to bottom."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from rl_posttrain.errors import RecipeError, RunError
from rl_posttrain.machine import process
from rl_posttrain.machine.describe import describe, device_name
from rl_posttrain.machine.process import world_size
from rl_posttrain.models.find import kv_cache_bytes_per_token, load_config, resolve_model
from rl_posttrain.recipe.load import parse_recipe, recipe_change
from rl_posttrain.recipe.resolve import Specs, resolve
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.sizes import derive_sizes, precision
from rl_posttrain.runs.directory import RunDirectory, checkpoint_step
from rl_posttrain.scoring.rewards import build_rewards, check_golds
from rl_posttrain.tasks.rows import TaskRows
from rl_posttrain.training.display import Display, MakeDisplay, NoDisplay


def train(
    recipe: Recipe, *, resume: bool = False, display: MakeDisplay | None = None, verbose: bool = False
) -> RunDirectory:
    """Train the recipe's model and return its run directory, which holds all that is known about the run.

    Under torchrun every process calls this; only the first one writes and shows anything.

    Args:
        resume: go on with the run of this name from its last checkpoint; a finished one is returned as it is.
        display: makes what shows progress, such as `views.live.make_display`; None shows nothing.
        verbose: let vLLM, DeepSpeed and transformers log as they like.

    Raises:
        RlPosttrainError: the recipe cannot be run here as it is written; the message says what to change.
    """
    process.prepare_process(verbose=verbose)
    sizes = derive_sizes(recipe, world_size())
    specs = resolve(recipe)
    rows = specs.task.make_rows(recipe.algorithm.prompts_per_step)
    rewards = build_rewards(specs.rewards, list(rows.train[0]))
    unreadable = check_golds(specs.rewards, [*rows.train, *rows.eval], recipe.task.max_unreadable_golds)
    shown = display is not None and process.is_main_process()
    # Before there is a directory or a display: a missing model costs nothing, and converting shows a bar of its own.
    model = resolve_model(recipe.model.name, note=print if shown else lambda text: None)
    run, started_from = open_run(recipe, resume)
    if run.summary() is not None:
        return run

    if started_from is not None and checkpoint_step(started_from) == recipe.algorithm.num_steps:
        # Stopped between the last step and the summary: all that is missing is made from what is there.
        if process.is_main_process():
            run.rewind(recipe.algorithm.num_steps)
            if recipe.checkpoint.final_model:
                run.copy_final_model(started_from)
            finish(run)
        return run

    held = run.locked() if process.is_main_process() else contextlib.nullcontext()
    with held, _discard_unstarted(run, resume), _start_display(recipe, display if shown else None) as view:
        if unreadable:
            view.note(unreadable)
        view.note("loading transformers, TRL and DeepSpeed")
        trainer = build_trainer(recipe, specs, sizes, rows, rewards, model, run, view)
        earlier = _rewind(run, trainer, started_from)
        view.resumed(earlier)
        trainer.train(resume_from_checkpoint=str(started_from) if started_from else None)
        if recipe.checkpoint.final_model:
            trainer.save_model(str(run.checkpoints_path / "final"))
        trainer.accelerator.wait_for_everyone()
        if process.is_main_process():
            finish(run)
            view.finish()
        trainer.accelerator.wait_for_everyone()
    return run


def open_run(recipe: Recipe, resume: bool) -> tuple[RunDirectory, Path | None]:
    """The run's directory, new or to go on with, and the checkpoint to start from.

    Raises:
        RunError: it exists and is not to be resumed, or the other way round, or its recipe is another one.
    """
    if not resume:
        if process.is_main_process():
            return RunDirectory.create(recipe.run_path, recipe_yaml=recipe.to_yaml()), None
        return RunDirectory(recipe.run_path), None
    run = RunDirectory.open(recipe.run_path)
    changed = recipe_change(parse_recipe(run.recipe()), recipe)
    if changed:
        raise RunError(
            f"{changed}: {run.path} was started otherwise; resume it with the same recipe, or set another run.name"
        )
    processes = run.environment().get("num_processes", world_size())
    if processes != world_size():
        raise RunError(
            f"run.name={run.name}: it was started on {processes} processes, not {world_size()}; "
            f"resume it with torchrun --nproc_per_node {processes}"
        )
    checkpoint = run.last_checkpoint()
    if checkpoint is None and run.metrics():
        raise RunError(
            f"checkpoint.every_steps={recipe.checkpoint.every_steps}: {run.path} has steps but no checkpoint to go on "
            "from; set another run.name, and checkpoint.every_steps for the next time"
        )
    return run, checkpoint


def build_trainer(
    recipe: Recipe, specs: Specs, sizes, rows: TaskRows, rewards: list, model: str, run: RunDirectory, view
):
    """The GRPO trainer with its model, engine, optimizer and records."""
    import datasets

    from rl_posttrain.rollout.vllm import VLLMEngine, require_vllm

    on_cpu = process.use_cpu_if_no_gpu()
    config = load_config(model)
    tokenizer = _load_tokenizer(model)
    longest = _longest_sequence(tokenizer, rows, recipe, config)
    if recipe.rollout.engine == "vllm":
        require_vllm()

    from rl_posttrain.models.digest import weights_digest
    from rl_posttrain.training.backends.deepspeed import leave_deepspeed, start_deepspeed
    from rl_posttrain.training.loop import GRPOTrainer
    from rl_posttrain.training.trl_config import grpo_config

    if recipe.distributed.engine == "deepspeed":
        start_deepspeed(on_cpu)
    else:
        leave_deepspeed()
    # transformers' callback takes the folder from the environment and nowhere else.
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(run.path / "tensorboard")
    arguments = grpo_config(recipe, sizes, on_cpu=on_cpu)

    def start_engine() -> VLLMEngine:
        view.note("starting vLLM")
        return VLLMEngine(
            model,
            dtype=recipe.model.dtype,
            max_tokens_per_sequence=longest,
            max_sequences=sizes.completions_per_process,
            kv_cache_bytes=kv_cache_bytes_per_token(config, recipe.model.dtype)
            * longest
            * sizes.completions_per_process,
            gpu_memory_share=recipe.rollout.gpu_memory_share,
            seed=recipe.run.seed,
        )

    view.note(f"loading {recipe.model.name}: {precision(recipe)}")
    trainer = GRPOTrainer(
        recipe=recipe,
        optimizer=specs.optimizer,
        engine=start_engine if recipe.rollout.engine == "vllm" else None,
        on_step=_recorder(run, view, recipe.logging.print_samples),
        on_phase=view.phase,
        model=model,
        reward_funcs=rewards,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows.train),
        eval_dataset=datasets.Dataset.from_list(rows.eval) if rows.eval else None,
        processing_class=tokenizer,
    )
    digest = weights_digest(trainer.policy_weights())
    if process.is_main_process():
        run.write_environment(describe(device_name()) | {"initial_weights_sha256": digest})
    return trainer


def finish(run: RunDirectory) -> None:
    """Draw the curve and write the summary, which marks the run as finished."""
    from rl_posttrain.runs.picture import plot_png
    from rl_posttrain.runs.series import summarize

    rows = run.metrics()
    plot_png({run.name: rows}, run.curve_path, title=run.name)
    run.write_summary(summarize(rows))


@contextlib.contextmanager
def _discard_unstarted(run: RunDirectory, resumed: bool) -> Iterator[None]:
    """Take the run directory away when an error comes before the first step: the next try can use its name."""
    try:
        yield
    except BaseException:
        if process.is_main_process() and not resumed and not run.metrics():
            shutil.rmtree(run.path, ignore_errors=True)
        raise


def _recorder(run: RunDirectory, view, num_samples: int) -> Callable[[dict, list[dict]], None]:
    def record(row: dict, rollouts: list[dict]) -> None:
        # Rollouts first: a step that metrics.jsonl knows has its rollouts on disk.
        if rollouts:
            run.write_rollouts(row["step"], rollouts)
        run.append_metrics(row)
        view.step(row, rollouts[:num_samples])

    return record


def _rewind(run: RunDirectory, trainer, checkpoint: Path | None) -> list[dict]:
    """Drop what a stopped process recorded beyond the checkpoint: the resumed run makes these steps again."""
    step = checkpoint_step(checkpoint) if checkpoint else 0
    trainer.accelerator.wait_for_everyone()
    earlier = run.rewind(step) if process.is_main_process() else []
    trainer.accelerator.wait_for_everyone()
    trainer.continue_from(earlier[-1]["seconds"] if earlier else 0.0)
    return earlier


def _load_tokenizer(model: str):
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, padding_side="left", truncation_side="left")
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RecipeError(
            f"model.name={model}: its tokenizer cannot be loaded ({reason}); save one beside the model"
        ) from error


def _longest_sequence(tokenizer, rows: TaskRows, recipe: Recipe, config) -> int:
    """Tokens of the longest prompt and a completion together.

    Raises:
        RecipeError: the model's context is shorter, or a chat template is needed and missing.
    """
    prompts = [row["prompt"] for row in (*rows.train, *rows.eval)]
    if isinstance(prompts[0], str):
        lengths = [len(ids) for ids in tokenizer(prompts)["input_ids"]]
    elif tokenizer.chat_template is None:
        raise RecipeError(
            f"task.template: {recipe.model.name} has no chat template, and the task's prompts are chat messages; "
            "set a plain template such as task.template=r1_zero"
        )
    else:
        options = {"add_generation_prompt": True, "return_dict": False} | (recipe.trl.get("chat_template_kwargs") or {})
        lengths = [len(tokenizer.apply_chat_template(prompt, **options)) for prompt in prompts]
    longest = max(lengths) + recipe.rollout.max_new_tokens
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    if context is not None and longest > context:
        raise RecipeError(
            f"rollout.max_new_tokens={recipe.rollout.max_new_tokens}: with the longest prompt of {max(lengths)} tokens "
            f"that is {longest}, and {recipe.model.name} has a context of {context}; lower max_new_tokens"
        )
    return longest


def _start_display(recipe: Recipe, display: MakeDisplay | None) -> Display:
    if display is None:
        return NoDisplay()
    return display(name=recipe.run.name, num_steps=recipe.algorithm.num_steps, device=device_name())
