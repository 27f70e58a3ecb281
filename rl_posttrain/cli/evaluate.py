"""`eval`."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rl_posttrain.cli.options import JsonOption
from rl_posttrain.errors import Interrupted, RecipeError

_OVERRIDE = re.compile(r"[a-z_]+(\.[A-Za-z0-9_]+)+=.*", re.DOTALL)


def evaluate(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL [KEY=VALUE ...]",
            help="A run directory, a checkpoint in one, a model folder, a hub name or smollm2-135m-instruct; one or "
            "several. Then changes to the recipe's sections run.seed, model, task, rewards, "
            "rollout, eval and trl, such as task.template=chat.",
        ),
    ],
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="A task's name, a data file, or package.module:name; give it again for several. "
            "Default: the task of the first run among the models."
        ),
    ] = None,
    num_questions: Annotated[int | None, typer.Option(min=1, help="How many questions. Default: all.")] = None,
    num_samples: Annotated[int | None, typer.Option(min=1, help="Samples of each question. Default: 1.")] = None,
    k: Annotated[str | None, typer.Option(metavar="1,4,16", help="The k of pass@k and maj@k. Default: 1.")] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="0 takes the likeliest token. Default: the run's; without a run 0 for one sample, 1 for several.",
        ),
    ] = None,
    top_p: Annotated[float | None, typer.Option(help="Default: the run's, or 1.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest completion. Default: the run's, or 1024.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="vllm or transformers. Default: the run's, or vllm.")] = None,
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN,...", help="Columns to break results down by. Default: what is known.")
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="OTHER", help="Evaluate this model, too, and compare on the same questions."),
    ] = None,
    margin: Annotated[
        float, typer.Option(min=1e-6, help="With --compare: smaller differences of accuracy do not matter.")
    ] = 0.05,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the samples; what it has is not drawn again. Default: a folder in evals/, by model, task "
            "and settings."
        ),
    ] = None,
    as_json: JsonOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the logs of vLLM and transformers.")] = False,
) -> None:
    """Evaluate models on a task's held-out questions, as training does, with standard errors."""
    from rl_posttrain.machine.process import is_main_process, prepare_process

    prepare_process(verbose=verbose)
    from rl_posttrain.evaluation.alone import evaluate_alone
    from rl_posttrain.evaluation.subjects import find_subjects
    from rl_posttrain.recipe.evaluation import evaluation_for
    from rl_posttrain.study.questions import comparison_of
    from rl_posttrain.views.evaluation import Progress, print_evaluations

    models = [target for target in targets if not _OVERRIDE.fullmatch(target)]
    if mistaken := next((model for model in models if "=" in model and not Path(model).exists()), None):
        raise RecipeError(f"{mistaken}: no model, and a change is written section.key=value, such as eval.top_p=0.9")
    if not models:
        raise RecipeError(f"MODEL: missing; {targets[0]} is a change of a key; name a run, a checkpoint or a model")
    named = find_subjects([*models, *([] if compare is None else [compare])])
    subjects = list({subject.location: subject for subject in named.values()}.values())
    if compare is not None and len(subjects) == 1:
        raise RecipeError(f"--compare={compare}: it is the model that is evaluated; name another")
    options = {
        "eval": _said(
            num_questions=num_questions,
            num_samples=num_samples,
            k=_numbers(k),
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
        ),
        "rollout": _said(engine=engine),
    }
    # One recipe for all of them, so that all answer the same questions in the same way.
    recipe = next((subject.run.recipe() for subject in subjects if subject.run), None)
    pairs = [
        (
            subject,
            evaluation_for(
                subject.name,
                task=name,
                options=options,
                overrides=[target for target in targets if target not in models],
                recipe=recipe,
            ),
        )
        for subject in subjects
        for name in dict.fromkeys(task or [None])
    ]
    listener = Progress(quiet=not is_main_process())
    if compare is not None and not all(any(reward.judges == "answer" for reward in e.rewards) for _, e in pairs):
        raise RecipeError(f"--compare={compare}: it needs a reward that judges answers; set rewards.0.judges=answer")
    columns = [name.strip() for name in by.split(",")] if by is not None else None
    try:
        with listener:
            results = evaluate_alone(pairs, out=out, listener=listener, by=columns)
    except Interrupted as stopped:
        kept = f"{stopped}; the samples of whole batches are kept, and the same command goes on"
        raise Interrupted(stopped.number, kept) from None
    if not is_main_process():
        return
    comparisons = [] if compare is None else comparison_of(results, named[compare].name, margin)
    if as_json:
        typer.echo(json.dumps({"evaluations": results, "comparisons": comparisons}, indent=2))
    else:
        print_evaluations(results, comparisons)


def _said(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _numbers(text: str | None) -> Sequence[int] | None:
    if text is None:
        return None
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", text):
        raise RecipeError(f"--k={text}: it is one or more whole numbers; give such as 1,4,16")
    return tuple(int(part) for part in text.split(","))
