"""From a recipe to a finished run. Read it top to bottom."""

import contextlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl_posttrain.machine.describe import describe, device_name
from rl_posttrain.machine.hub import hub
from rl_posttrain.machine.peers import watched
from rl_posttrain.machine.process import (
    deterministic_kernels,
    is_main_process,
    prepare_process,
    use_cpu_if_no_gpu,
    world_size,
)
from rl_posttrain.machine.rendezvous import prepare_rendezvous
from rl_posttrain.machine.signals import Stop, handled
from rl_posttrain.models.find import check_source, load_config, origin, resolve_model, whole_model
from rl_posttrain.recipe.resolve import Specs, check_rows_to_evaluate, resolve
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.sizes import Sizes, derive_sizes
from rl_posttrain.rollout.prompt_lengths import token_counter
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.scoring.golds import check_golds
from rl_posttrain.scoring.rewards import Reward, build_rewards
from rl_posttrain.scoring.warm_start import start_workers
from rl_posttrain.tasks.prepare import as_table
from rl_posttrain.tasks.rows import TaskRows
from rl_posttrain.training.display import Display, MakeDisplay, start_display
from rl_posttrain.training.inputs import check_names, compare_inputs, find_inputs
from rl_posttrain.training.kept import discard_unstarted, telling_what_is_kept
from rl_posttrain.training.resume import (
    Start,
    check_same_device,
    check_same_folder,
    check_same_start,
    find_start,
    is_over,
    open_run,
    rewind,
)

if TYPE_CHECKING:
    from rl_posttrain.training.algorithms.algorithm import Algorithm


def train(
    recipe: Recipe,
    *,
    resume: bool = False,
    allow_change: Sequence[str] = (),
    display: MakeDisplay | None = None,
    verbose: bool = False,
) -> RunDirectory:
    """Train the recipe's model and return its run directory, which holds all that is known about the run.

    Under torchrun every process calls this; only the first one writes and shows anything.

    Args:
        resume: continue the run of this name from its last checkpoint; a finished one is returned as it is.
        allow_change: sections and keys of the recipe that a resumed run may have otherwise than before.
        display: makes what shows progress, such as `views.live.make_display`; None shows nothing.
        verbose: let vLLM, DeepSpeed and transformers log as they like.

    Raises:
        RlPosttrainError: the recipe cannot be run here as it is written; the message says what to change.
        Interrupted: a signal has ended the run; the message says what is kept, and how to go on.
    """
    prepare_process(verbose=verbose, deterministic=recipe.run.deterministic)
    with watched():
        return _prepared(recipe, resume, allow_change, display)


def _prepared(recipe: Recipe, resume: bool, allow_change: Sequence[str], display: MakeDisplay | None) -> RunDirectory:
    """`train` in a process that is prepared."""
    # Imported here: it imports torch, before which the process must be prepared.
    from rl_posttrain.training.algorithms.algorithm import make_algorithm

    check_names(allow_change, recipe)
    sizes = derive_sizes(recipe, world_size())
    specs = resolve(recipe)
    algorithm = make_algorithm(recipe)
    _check_trl(recipe, sizes)
    trusts = recipe.model.trust_remote_code
    check_source(recipe.model.name, trust_remote_code=trusts)
    counter = token_counter(recipe.model.name, recipe.trl.get("chat_template_kwargs"), trust_remote_code=trusts)
    rows = specs.task.make_rows(recipe.algorithm.prompts_per_step, counter)
    check_rows_to_evaluate(recipe, rows)
    rewards = build_rewards(specs.rewards, list(rows.train[0]), rows.parts, recipe.guards.reward.if_unusable)
    start_workers(specs.rewards, [*rows.train, *rows.eval])
    golds = check_golds(specs.rewards, [*rows.train, *rows.eval], recipe.task.max_unreadable_golds)
    if not is_main_process():
        display = None
    # Before there is a directory or a display: a missing model costs nothing, and converting shows a bar of its own.
    model = resolve_model(recipe.model.name, note=print if display else lambda text: None)
    if recipe.critic is not None and recipe.critic.model is not None:
        from rl_posttrain.models.vocabulary import check_same_vocabulary

        check_same_vocabulary(recipe.model.name, recipe.critic.model, key="critic.model", trust_remote_code=trusts)
    inputs = find_inputs(recipe, rows, model)
    with handled() as stop:
        with stop.deferred(""):
            run = open_run(recipe, resume, inputs)
            if resume:
                inputs = compare_inputs(run, recipe, inputs, allow_change)
            if run.summary() is not None and not inputs.more_steps:
                if display:
                    print(f"{run.path} is finished: {run.summary().get('steps')} steps; nothing is left to do")
                return run
            start = find_start(recipe, run) if resume else Start()
        lock = run.locked() if is_main_process() else contextlib.nullcontext()
        if is_over(recipe, start):
            # Stopped between the last step and the summary: all that is missing is made from what is there.
            if is_main_process():
                with lock:
                    note = print if display else lambda text: None
                    for text in (*inputs.notes, *start.notes):
                        note(text)
                    rewind(recipe, run, start, note)
                    inputs.record(run, recipe, after_step=start.step)
                    finish(recipe, run, start.checkpoint if recipe.checkpoint.final_model else None)
            return run

        warnings = [text for text in (golds.warning if golds else None, recipe.checkpoint.warning) if text]
        with (
            lock,
            telling_what_is_kept(recipe, run),
            discard_unstarted(run, stop, resumed=resume),
            deterministic_kernels(recipe.run.deterministic),
            start_display(recipe, display) as view,
        ):
            stop.check()
            for note in (*rows.notes, *warnings, *inputs.notes, *start.notes):
                view.note(note)
            if is_main_process() and not resume:
                inputs.record(run, recipe, after_step=0)
            view.note("loading transformers, TRL and DeepSpeed")
            with hub(model):
                trainer = build_trainer(recipe, specs, algorithm, sizes, rows, rewards, model, run, view, stop)
            for note in _describe_start(recipe, run, trainer):
                view.note(note)
            trainer.accelerator.wait_for_everyone()
            check_same_folder(run)
            check_same_start(start)
            with stop.deferred("the step is finished or dropped, then a checkpoint is written"):
                if is_main_process():
                    rewind(recipe, run, start, view.note)
                    inputs.with_models(recipe, model).record(run, recipe, after_step=start.step)
                trainer.accelerator.wait_for_everyone()
                _train(recipe, trainer, run, start, view)
    return run


def _train(recipe: Recipe, trainer: Any, run: RunDirectory, start: Start, view: Display) -> None:
    """From the start to the summary; a signal ends it where `training.stopping` says."""
    from rl_posttrain.training.stopping import train_until_stopped

    trainer.goals.best = run.best()
    trainer.guards.start(start.rows)
    view.resumed(list(start.rows))
    trainer.clock.start(start.rows[-1]["seconds"] if start.rows else 0.0)
    train_until_stopped(trainer, start.checkpoint)
    if recipe.checkpoint.final_model:
        trainer.save_model(str(run.saved_model_path))
    trainer.rollouts.close()
    trainer.accelerator.wait_for_everyone()
    if is_main_process():
        finish(recipe, run, run.saved_model_path if recipe.checkpoint.final_model else None)
        if stopped := run.summary()["stopped_early"]:
            view.note(f"stopped early at {stopped} (algorithm.stop_at)")
        view.finish()
    trainer.accelerator.wait_for_everyone()


def _check_trl(recipe: Recipe, sizes: Sizes) -> None:
    """Check the recipe's `trl` section before there is a directory; TRL is imported only where it has one.

    Raises:
        RecipeError: as `trl_config.check_trl`.
    """
    if not recipe.trl:
        return
    use_cpu_if_no_gpu()
    with contextlib.suppress(ImportError):  # of a vLLM that cannot be imported: the engine says what to do
        from rl_posttrain.training.backends.backend import make_backend
        from rl_posttrain.training.trl_config import check_trl

        check_trl(recipe, sizes, make_backend(recipe, sizes))


def build_trainer(
    recipe: Recipe,
    specs: Specs,
    algorithm: "Algorithm",
    sizes: Sizes,
    rows: TaskRows,
    rewards: list[Reward],
    model: str,
    run: RunDirectory,
    view: Display,
    stop: Stop,
) -> Any:
    """The `PolicyTrainer` with its model, engine, optimizer and records.

    Args:
        model: local folder or hub name.

    Raises:
        RlPosttrainError: something that the recipe names cannot be loaded, or does not start here.
    """
    # The heavy imports stand here, so that a mistake in the recipe shows before them.
    on_cpu = use_cpu_if_no_gpu()
    prepare_rendezvous()

    from rl_posttrain.rollout.prompts import load_tokenizer, longest_sequence, tokenize
    from rl_posttrain.training.backends.backend import make_backend
    from rl_posttrain.training.engines import engine_for

    trusts = recipe.model.trust_remote_code
    config = load_config(model, trust_remote_code=trusts)
    tokenizer = load_tokenizer(model, name=recipe.model.name, trust_remote_code=trusts)
    prompts = [row["prompt"] for row in (*rows.train, *rows.eval)]
    longest_prompt = max(map(len, tokenize(tokenizer, prompts, recipe.trl.get("chat_template_kwargs") or {})))
    longest = longest_sequence(longest_prompt, recipe.max_new_tokens, config, name=recipe.model.name)
    make_engine = engine_for(recipe, sizes, model=model, config=config, longest=longest, note=view.note)

    # TRL imports vLLM where it is installed, so these stand after the check that it can be imported.
    from rl_posttrain.training.adapters import lora_arguments
    from rl_posttrain.training.critic import make_critic
    from rl_posttrain.training.evaluation import Evaluation
    from rl_posttrain.training.guards.guards import Guards
    from rl_posttrain.training.sharded_loop import trainer_class
    from rl_posttrain.training.trl_config import grpo_config

    adapters = lora_arguments(recipe, config, specs.optimizer)
    backend = make_backend(recipe, sizes)
    backend.start(on_cpu=on_cpu)
    # transformers' callback takes the folder from the environment and nowhere else.
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(run.path / "tensorboard")
    arguments = grpo_config(recipe, sizes, backend, on_cpu=on_cpu)
    num_samples = recipe.logging.print_samples

    def on_step(row: dict, rollouts: list[dict]) -> None:
        # Rollouts first: a step that metrics.jsonl knows has its rollouts on disk.
        if rollouts:
            run.write_rollouts(row["step"], rollouts)
        run.append_metrics(row)
        view.step(row, rollouts[:num_samples])

    view.note(f"loading {recipe.model.name}: {backend.precision}{recipe.model.four_bits}")
    with whole_model(recipe.model.name):
        return trainer_class(backend)(
            recipe=recipe,
            sizes=sizes,
            backend=backend,
            algorithm=algorithm,
            make_critic=partial(make_critic, recipe) if recipe.critic else None,
            optimizer=specs.optimizer,
            make_engine=make_engine,
            rewards=rewards,
            make_evaluation=partial(Evaluation, recipe, specs.task, rows, run),
            guards=Guards(recipe, specs.rewards, algorithm, run, view.note),
            on_step=on_step,
            on_phase=view.phase,
            on_first_evaluation=view.evaluated,
            on_note=view.note,
            stop=stop,
            model=model,
            args=arguments,
            train_dataset=as_table(rows.train, recipe.task.name),
            processing_class=tokenizer,
            **adapters,
        )


def finish(recipe: Recipe, run: RunDirectory, model: Path | None) -> None:
    """Write the final model, draw the curve, and write the summary, which marks the run as finished.

    Args:
        model: the folder that has its weights, a checkpoint or the run's `saved_model_path`; None: no final model.
    """
    from rl_posttrain.models.export import write_final_model
    from rl_posttrain.runs.columns import columns_of
    from rl_posttrain.runs.goals import reached, stop_in_words
    from rl_posttrain.runs.picture import plot_png
    from rl_posttrain.runs.series import summarize

    rows = run.metrics()
    if model is not None:
        write_final_model(run, model, rows[-1]["step"])
    if any(row.get("reward") is not None for row in rows):  # a reward may judge nothing
        plot_png({run.name: rows}, run.curve_path, title=run.name)
    algorithm, stopped = recipe.algorithm, None
    if reached(algorithm.stop_at, rows[-1]) and rows[-1]["step"] < algorithm.num_steps:
        stopped = stop_in_words(algorithm.stop_at, rows[-1], algorithm.num_steps)
    run.write_summary(summarize(columns_of(rows)) | {"stopped_early": stopped})


def _describe_start(recipe: Recipe, run: RunDirectory, trainer: Any) -> list[str]:
    """Record the surroundings, and a digest of the weights that the run starts from.

    Returns:
        A note for the user where a resumed run goes on elsewhere, of the main process.
    """
    from rl_posttrain.models.digest import weights_digest

    digest = weights_digest(trainer.guards.at_the_start(trainer.policy.weights()))
    device = device_name()
    notes = check_same_device(recipe, run, device)
    if is_main_process():
        model = origin(run.recipe()["model"]["name"]) | {"initial_weights_sha256": digest}
        run.write_environment(describe(device) | model)
    return notes
