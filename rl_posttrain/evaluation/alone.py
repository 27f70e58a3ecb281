"""Evaluations outside of training: several models on several tasks, with as few starts of an engine as possible."""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from rl_posttrain.errors import RecipeError, did_you_mean
from rl_posttrain.evaluation.evaluate import Amount, Processes, evaluate
from rl_posttrain.evaluation.results import BREAKDOWNS
from rl_posttrain.evaluation.sampler import Sampler
from rl_posttrain.evaluation.samples import check_folder
from rl_posttrain.evaluation.settings import settings_of
from rl_posttrain.evaluation.subjects import Subject
from rl_posttrain.machine.process import use_cpu_if_no_gpu, world_size
from rl_posttrain.machine.rendezvous import prepare_rendezvous
from rl_posttrain.models.digest import folder_digest
from rl_posttrain.models.find import load_config
from rl_posttrain.recipe.evaluation import Evaluation
from rl_posttrain.recipe.resolve import TaskSpec, resolve_task
from rl_posttrain.recipe.reward_spec import resolve_reward
from rl_posttrain.rollout.engine import Sampling
from rl_posttrain.rollout.prompt_lengths import token_counter
from rl_posttrain.rollout.prompts import load_tokenizer, longest_sequence, tokenize
from rl_posttrain.rollout.sampling import evaluation_sampling, rollout_sampling
from rl_posttrain.rollout.vllm import require_vllm
from rl_posttrain.runs.files import to_json
from rl_posttrain.scoring.golds import check_golds
from rl_posttrain.scoring.rewards import Reward, build_rewards
from rl_posttrain.scoring.warm_start import start_workers
from rl_posttrain.tasks.rows import TaskRows


class Listener(Protocol):
    """Who is told of the evaluations while they go on."""

    def note(self, text: str) -> None:
        """A message of one line."""

    def begin(self, model: str, task: str, num_questions: int, num_samples: int) -> None:
        """The evaluation of a model on a task begins."""

    def progress(self, num_done: int, num_samples: int, num_tokens: int, seconds: float) -> None:
        """So many of its samples are drawn, with so many tokens, in so many seconds."""


@dataclass(frozen=True)
class _Job:
    """One model on one task, checked, before anything is loaded."""

    subject: Subject
    evaluation: Evaluation
    task: TaskSpec
    rows: TaskRows
    rewards: list[Reward]
    sampling: Sampling
    chat_template: str | None  # of prompts that are chat messages
    num_questions: int
    longest: int

    @property
    def title(self) -> str:
        """What tables call the task; no two of a call have the same."""
        return str(self.task.arguments["path"]) if self.task.name == "file" else self.task.name


def evaluate_alone(
    pairs: Sequence[tuple[Subject, Evaluation]],
    *,
    out: Path | None,
    listener: Listener,
    by: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Evaluate each model on its task. Under torchrun every process calls this, and they share the samples.

    Args:
        pairs: models that stand beside each other and have one architecture share an engine.
        out: the folder of the samples; several evaluations get a folder each in it. None for one below ``evals``, whose
            name says model, task and settings. What is there is not drawn again.
        by: columns to break results down by; None for those of `BREAKDOWNS` that rows have.

    Returns:
        The content of each results.json; the folder under ``folder``, and what tables call the task under ``title``:
        its name, or the path of a data file.

    Raises:
        RlPosttrainError: something that was asked for cannot be had; the message says what to change.
    """
    use_cpu_if_no_gpu()
    prepare_rendezvous()
    jobs = [_job(subject, evaluation, listener) for subject, evaluation in pairs]
    _check_columns(by or (), jobs)
    all_settings = [_settings(job) for job in jobs]
    folders = [
        _folder(out, settings, job.title, alone=len(jobs) == 1)
        for job, settings in zip(jobs, all_settings, strict=True)
    ]
    for folder, settings in zip(folders, all_settings, strict=True):
        check_folder(folder, json.loads(to_json(settings)))
    processes = _processes()
    results = []
    sampler: Sampler | None = None
    for place, (job, folder, settings) in enumerate(zip(jobs, folders, all_settings, strict=True)):
        longest = max(later.longest for later in jobs[place:] if later.subject == job.subject)
        sampler = _sampler_for(job, sampler, longest, listener)
        listener.begin(job.subject.name, job.title, job.num_questions, job.evaluation.eval.num_samples)
        found = evaluate(
            job.rows.eval,
            lambda rows, seeds, job=job, sampler=sampler: sampler.draw(
                rows, seeds, job.sampling, job.evaluation.trl.get("chat_template_kwargs") or {}
            ),
            job.rewards,
            Amount(job.num_questions, job.evaluation.eval.num_samples, job.evaluation.eval.k, by or BREAKDOWNS),
            seed=job.evaluation.run.seed,
            depends_on_batch=sampler.depends_on_batch,
            folder=folder,
            settings=settings,
            processes=processes,
            on_progress=listener.progress,
        )
        results.append(found | {"folder": str(folder), "title": job.title})
    if sampler is not None:
        sampler.close()
    return results


def _job(subject: Subject, evaluation: Evaluation, listener: Listener) -> _Job:
    """Check everything that can be checked without the model's weights."""
    task = resolve_task(evaluation.task, evaluation.run.seed)
    specs = [resolve_reward(section, f"rewards.{place}") for place, section in enumerate(evaluation.rewards)]
    if evaluation.rollout.engine == "vllm":
        require_vllm()
    trusts = evaluation.model.trust_remote_code
    config = load_config(subject.location, key="MODEL", trust_remote_code=trusts)
    counter = token_counter(subject.location, evaluation.trl.get("chat_template_kwargs"), trust_remote_code=trusts)
    rows = task.make_rows(count_tokens=counter)
    for note in rows.notes:
        listener.note(note)
    asked = evaluation.eval.num_questions
    if not rows.eval:
        raise RecipeError(f"task.name={task.name}: it has no rows to evaluate on; set task.num_eval")
    if asked is not None and asked > len(rows.eval):
        raise RecipeError(
            f"--num-questions={asked}: the task has {len(rows.eval)} rows to evaluate on; ask for fewer, or set "
            "task.num_eval where the task can make or hold out more"
        )
    rewards = build_rewards(specs, list(rows.eval[0]), rows.parts)
    start_workers(specs, rows.eval)
    golds = check_golds(specs, rows.eval, evaluation.task.max_unreadable_golds)
    if golds is not None and golds.warning:
        listener.note(golds.warning)
    sampling = evaluation_sampling(evaluation.eval, rollout_sampling(evaluation.rollout, evaluation.trl))
    tokenizer = load_tokenizer(subject.location, name=subject.name, trust_remote_code=trusts)
    chat_options = evaluation.trl.get("chat_template_kwargs") or {}
    prompts = [row["prompt"] for row in rows.eval]
    longest_prompt = max(map(len, tokenize(tokenizer, prompts, chat_options)))
    longest = longest_sequence(longest_prompt, {"eval": sampling.max_tokens}, config, name=subject.name)
    chat_template = None if isinstance(prompts[0], str) else str(tokenizer.chat_template)
    return _Job(subject, evaluation, task, rows, rewards, sampling, chat_template, asked or len(rows.eval), longest)


def _check_columns(by: Sequence[str], jobs: Sequence[_Job]) -> None:
    columns = list(dict.fromkeys(column for job in jobs for column in job.rows.eval[0] if column != "prompt"))
    if unknown := next((name for name in by if name not in columns), None):
        raise RecipeError(f"--by={unknown}: rows have no such column; {did_you_mean(unknown, columns)}")


def _sampler_for(job: _Job, sampler: Sampler | None, longest: int, listener: Listener) -> Sampler:
    """The sampler of the job's model: the present one, where it can take the model's weights, or a new one."""
    if sampler is not None:
        if sampler.can_become(job.subject, job.evaluation, longest):
            sampler.become(job.subject)
            return sampler
        sampler.close()
    listener.note(f"loading {job.subject.name}")
    return Sampler(job.subject, job.evaluation, longest)


def _settings(job: _Job) -> dict[str, Any]:
    location = Path(job.subject.location)
    trusts = job.evaluation.model.trust_remote_code
    config = None if location.is_dir() else load_config(job.subject.location, trust_remote_code=trusts)
    settings = settings_of(
        model=job.subject.name,
        dtype=job.evaluation.model.dtype,
        engine=job.evaluation.rollout.engine,
        task=job.task,
        rows=job.rows,
        rewards=job.evaluation.rewards,
        sampling=job.sampling,
        seed=job.evaluation.run.seed,
    )
    settings["step"] = job.subject.step
    settings["weights"] = folder_digest(location) if config is None else getattr(config, "_commit_hash", None)
    if job.chat_template is not None:
        options = job.evaluation.trl.get("chat_template_kwargs") or {}
        settings["chat"] = {"template_sha256": _sha256(job.chat_template), "options": options}
    if sources := _sources(job.rewards):
        settings["reward_files"] = sources
    return settings


def _sources(rewards: Sequence[Reward]) -> dict[str, str]:
    """The digest of every file of the user's own rewards: after a change of it, samples have other rewards."""
    files = {reward.spec.fn: Path(reward.spec.fn.rpartition(":")[0]) for reward in rewards}
    return {fn: _sha256(path.read_bytes()) for fn, path in files.items() if path.suffix == ".py" and path.is_file()}


def _sha256(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def _folder(out: Path | None, settings: dict[str, Any], title: str, *, alone: bool) -> Path:
    if out is not None and alone:
        return out
    digest = _sha256(to_json(settings, sort_keys=True))[:8]
    words = [name.rstrip("/").rpartition("/")[2] for name in (settings["model"], title)]
    name = "-".join([*(re.sub(r"[^A-Za-z0-9._@-]+", "_", word) for word in words), digest])
    return (out or Path("evals")) / name


def _processes() -> Processes:
    """The processes of this job, joined by torch.distributed where there are several."""
    if world_size() == 1:
        return Processes()
    if not torch.distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")

    def gather(own: list) -> list:
        parts: list[list] = [[] for _ in range(world_size())]
        torch.distributed.all_gather_object(parts, own)
        return list(itertools.chain(*parts))

    return Processes(torch.distributed.get_rank(), world_size(), gather)
