"""Models with Python code of their own: it runs where a recipe says so, and nowhere else."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import run_command

from rl_posttrain.errors import RecipeError
from rl_posttrain.models.export import export_model
from rl_posttrain.models.find import check_source, load_config
from rl_posttrain.rollout.prompts import load_tokenizer
from rl_posttrain.runs.directory import RunDirectory

TRUST = "model.trust_remote_code=true"
OPTIONS = ("algorithm.num_steps=1", "rollout.engine=transformers", "distributed.engine=none")


@pytest.fixture(scope="module")
def foreign(tiny_model, tmp_path_factory) -> Path:
    """The tiny model as a class of its own, which leaves a mark where its code runs."""
    folder = tmp_path_factory.mktemp("foreign") / "mine"
    shutil.copytree(tiny_model, folder)
    mark = f"import pathlib\npathlib.Path({str(folder.parent / 'ran')!r}).touch()\n"
    (folder / "configuration_mine.py").write_text(
        f"{mark}from transformers import LlamaConfig\n\n\nclass MineConfig(LlamaConfig):\n    model_type = 'mine'\n"
    )
    (folder / "modeling_mine.py").write_text(
        f"{mark}from transformers import LlamaForCausalLM, LlamaModel\nfrom .configuration_mine import MineConfig\n\n\n"
        "class MineForCausalLM(LlamaForCausalLM):\n    config_class = MineConfig\n\n\n"
        "class MineModel(LlamaModel):\n    config_class = MineConfig\n"
    )
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "architectures": ["MineForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_mine.MineConfig",
            "AutoModel": "modeling_mine.MineModel",
            "AutoModelForCausalLM": "modeling_mine.MineForCausalLM",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def assert_refused(line: str, folder: Path, key: str) -> None:
    assert line.startswith(f"{key}={folder}: it comes with Python code of its own (auto_map in its config.json)"), line
    assert "set model.trust_remote_code=true to run it" in line
    assert not (folder.parent / "ran").exists(), "code of the model ran"


def test_no_command_runs_it_or_asks(foreign, tiny_model, tiny_recipe, tmp_path, run_main):
    model = f"model.name={foreign}"
    task = tmp_path / "rows.jsonl"
    task.write_text('{"question": "What is 1 + 1?", "answer": "2"}\n')
    critic = ("algorithm.name=ppo", f"critic.model={foreign}", "algorithm.scale_rewards=null")
    for arguments, key in (
        (("train", tiny_recipe, model, *OPTIONS, f"run.output_dir={tmp_path}"), "model.name"),
        (("check", tiny_recipe, model, *OPTIONS), "model.name"),
        (("check", tiny_recipe, *critic, *OPTIONS), "critic.model"),
        (("train", tiny_recipe, *critic, *OPTIONS, f"run.output_dir={tmp_path}"), "critic.model"),
        (("eval", foreign, "--task", task, "--engine", "transformers"), "MODEL"),
        (("optim", "memory", foreign), "model.name"),
    ):
        status, _, stderr = run_main(*arguments)
        assert (status, stderr.count("\n")) == (2, 1), (arguments, stderr)
        line = stderr.removeprefix("rl-posttrain: ").partition(", and ")[2] if "optim" in arguments else stderr
        assert_refused(line.removeprefix("rl-posttrain: "), foreign, key)
    assert list(tmp_path.iterdir()) == [task]


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_known_kind_of_model_with_code_beside_it_is_refused_too(tiny_model, tmp_path, file):
    """transformers would take its own class in silence, and the user would not know which of the two ran."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(config | {"auto_map": {"AutoConfig": "x.Y", "AutoTokenizer": ["x.Y", None]}}))
    for load in (check_source, load_config, lambda name: load_tokenizer(name, name=name)):
        with pytest.raises(RecipeError, match=rf"comes with Python code of its own \(auto_map in its {file}\)"):
            load(str(folder))
    (folder / file).write_text(json.dumps(config))
    check_source(str(folder))


def test_with_a_word_in_the_recipe_it_trains_resumes_exports_and_is_evaluated(foreign, tiny_recipe, tmp_path, run_main):
    recipe = (f"model.name={foreign}", TRUST, *OPTIONS, f"run.output_dir={tmp_path}", "run.name=mine")
    more = ("checkpoint.every_steps=1", "checkpoint.final_model=true")
    done = run_command("train", tiny_recipe, *recipe, *more)
    assert done.returncode == 0, done.stderr
    assert (foreign.parent / "ran").exists()
    run = RunDirectory.open(tmp_path / "mine")
    done = run_command("train", tiny_recipe, *recipe, *more, "algorithm.num_steps=2", "--resume")
    assert done.returncode == 0, done.stderr
    assert len(run.metrics()) == 2
    folder = export_model(run, tmp_path / "exported").folder
    assert (folder / "modeling_mine.py").is_file()
    assert load_config(str(folder), trust_remote_code=True).model_type == "mine"
    with pytest.raises(RecipeError, match="comes with Python code of its own"):
        load_config(str(folder))
    for name, word in ((run.path, ()), (folder, (TRUST,))):
        status, _, stderr = run_main(
            "eval", name, "--task", "arithmetic", "--num-questions", "2", "--max-new-tokens", "4", "--engine",
            "transformers", "--out", tmp_path / f"eval-{name.name}", *word,
        )  # fmt: skip
        assert status == 0, stderr
