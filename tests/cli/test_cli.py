"""The commands: a user's mistake is one line on stderr and exit status 2, and leaves nothing behind."""

import json
import os
from pathlib import Path

import pytest
from conftest import run_command

from rl_posttrain.recipe.files import bundled_recipes
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.runs.directory import RunDirectory

# The quickest way to the checks that come once torch and TRL are there.
PLAIN = ("rollout.engine=transformers", "distributed.engine=none")


def one_line(status: int, stderr: str) -> str:
    """The message, if it is what a user should see."""
    assert status == 2, stderr
    assert stderr.count("\n") == 1, stderr
    assert stderr.startswith("rl-posttrain: ")
    assert "Traceback" not in stderr
    return stderr.removeprefix("rl-posttrain: ").rstrip("\n")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("algorithm.group_sise=8", "algorithm.group_sise=8: unknown key; did you mean 'group_size'?"),
        ("algorithm.num_steps=ten", "algorithm.num_steps=ten: it should be a valid integer"),
        (
            "algorithm.group_size=1",
            "algorithm.group_size=1: grpo compares the completions of one prompt, so set 2 or more; ppo and "
            "reinforce_pp take 1",
        ),
        (
            "trl.num_iterations=2",
            "trl.num_iterations=2: the recipe decides this field itself; set algorithm.num_epochs",
        ),
        ("algorithm.micro_batch_size=5", "algorithm.micro_batch_size=5: 4 prompts x 4 completions = 16 a step do not"),
        ("algorithm.prompts_per_step=65", "algorithm.prompts_per_step=65: the task has 64 training rows"),
        ("rewards.0.fn=math_acuracy", "rewards.0.fn=math_acuracy: no built-in of that name; did you mean 'math_accur"),
        ("rewards.0.fn=/no/such/file.py:mine", "rewards.0.fn=/no/such/file.py:mine: no file /no/such/file.py"),
        ("rewards.1.args.answr_in=[boxed]", "rewards.1.args.answr_in=['boxed']: math_accuracy takes no such argument"),
        ("task.name=arithmetc", "task.name=arithmetc: no built-in of that name; did you mean 'arithmetic'?"),
        ("task.operatos=[+]", "task.operatos=['+']: arithmetic takes no such argument; did you mean 'operators'?"),
        ("task.digits=0", "task.digits=0: operands have 1 to 9 digits"),
        ("task.template=chats", "task.template=chats: no template of that name; did you mean 'chat'?"),
        ("no-override", "no-override: an override is written section.key=value"),
        ("model.name=/no/such/model", "model.name=/no/such/model: no such folder"),
        ("model.name=./model", f"model.name={Path.cwd() / 'model'}: no such folder"),
        ("optimizer.name=adms", "optimizer.name=adms: no built-in of that name; did you mean 'adams'?"),
        (
            "optimizer.bets=[0.9, 0.95]",
            "optimizer.bets=[0.9, 0.95]: AdamS takes no such argument; did you mean 'betas'",
        ),
        (
            "optimizer.betas=[0.9, 1.5]",
            "optimizer.betas=(0.9, 1.5): adams refuses it",
        ),
        ("trl.top_kk=5", "trl.top_kk=5: GRPOConfig has no such field; did you mean 'top_k'?"),
        ("trl.learning_rate=1", "trl.learning_rate=1: the recipe decides this field itself; set optimizer.lr instead"),
        (
            "trl.vllm_mode=server",
            "trl.vllm_mode=server: it sets up TRL's own vLLM, which does not run here; see rollout",
        ),
        ("trl.use_vllm=true", "trl.use_vllm=True: the recipe decides this field itself; set rollout.engine instead"),
        ("logging.trackers=[tensorbord]", "logging.trackers=['tensorbord']: tensorbord is not supported"),
        ("trl.epsilon=[1]", "trl.epsilon=[1]: input should be a valid number"),
    ],
)
def test_a_mistake_in_the_recipe(run_main, tiny_recipe, tmp_path, override, message):
    arguments = (*PLAIN, "run.name=mistake", f"run.output_dir={tmp_path}", override)
    status, _, stderr = run_main("train", tiny_recipe, *arguments)
    assert one_line(status, stderr).startswith(message)
    assert os.listdir(tmp_path) == [], "a run that never started is in the way of the next try"


REWARDS = """
def needs_a_column(completions, gold, **kwargs):
    return [0.0] * len(completions)
def takes_no_keywords(completions, answer):
    return [0.0] * len(completions)
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("needs_a_column", "it needs 'gold', which is neither a column of the task (prompt, question, answer)"),
        ("takes_no_keywords", "it cannot be called as the trainer does"),
        ("gone", "has no 'gone'"),
    ],
)
def test_a_reward_that_does_not_fit(run_main, tiny_recipe, tmp_path, name, message):
    file = tmp_path / "mine.py"
    file.write_text(REWARDS)
    status, _, stderr = run_main("train", tiny_recipe, f"rewards.0.fn={file}:{name}", f"run.output_dir={tmp_path}/runs")
    text = one_line(status, stderr)
    assert text.startswith(f"rewards.0.fn={file}:{name}: ")
    assert message in text
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_written(run_main, tiny_recipe, tmp_path):
    (tmp_path / "file").write_text("kept")
    status, _, stderr = run_main("train", tiny_recipe, f"run.output_dir={tmp_path}/file/runs")
    assert one_line(status, stderr).startswith(f"run.output_dir={tmp_path}/file/runs: cannot write ")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_run_that_exists_is_left_alone(run_main, tiny_recipe, tmp_path):
    arguments = ("train", tiny_recipe, f"run.output_dir={tmp_path}")
    run = RunDirectory.create(
        tmp_path / "tiny", recipe_yaml=load_recipe(tiny_recipe, [f"run.output_dir={tmp_path}"]).to_yaml()
    )
    run.append_metrics({"step": 1})
    is_there = f"run.name=tiny: {run.path} is "

    def refused(*overrides: str) -> str:
        status, _, stderr = run_main(*arguments, *overrides)
        text = one_line(status, stderr)
        assert run.metrics() == [{"step": 1}]
        return text.removeprefix(is_there)

    assert refused() == "an unfinished run; continue it with --resume, or set another run.name"
    # What --resume would refuse is not proposed.
    cannot = "an unfinished run that this command cannot go on with ({}); set another run.name"
    other = f"optimizer.lr=0.5 (was 0.001): {run.path} was started otherwise"
    assert refused("optimizer.lr=0.5") == cannot.format(other)
    with run.locked():
        assert refused() == cannot.format(f"run.name=tiny: another process is training {run.path}")
    run.write_environment({"num_processes": 2})
    assert refused() == cannot.format(
        "run.name=tiny: it was started on 2 processes, not 1 (DeepSpeed keeps the optimizer's state by process)"
    )
    run.write_summary({"steps": 1})
    assert refused() == "a finished run; set another run.name"


def test_a_run_that_is_not_there_cannot_be_resumed(run_main, tiny_recipe, tmp_path):
    arguments = ("train", tiny_recipe, f"run.output_dir={tmp_path}", "--resume")
    status, _, stderr = run_main(*arguments, "run.name=tiny")
    assert one_line(status, stderr).startswith(f"no run at {tmp_path}/tiny")
    status, _, stderr = run_main(*arguments)
    assert one_line(status, stderr).startswith(f"--resume: {tmp_path} has no unfinished run of this recipe")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "missing argument 'RECIPE'; see `rl-posttrain train --help`"),
        (
            ["train", "quickstart", "--resum"],
            "no such option: --resum (Possible options: --auto-resume, --resume); see",
        ),
        (["trian", "quickstart"], "no such command 'trian', did you mean 'train'; see `rl-posttrain --help`"),
        (["check", "quickstart", "--num-processes", "x"], "invalid value for '--num-processes': "),
        (["check", "quickstart", "--num-processes", "0"], "invalid value for '--num-processes': "),
        (["curves"], "missing argument 'RUN"),
        (["curves", "/no/such/run"], "RUN=/no/such/run: there is no such file or folder"),
        (["check", "quikstart"], "RECIPE=quikstart: no file and no bundled recipe of that name; did you mean 'quickst"),
        (["train", "quikstart.yaml"], "RECIPE=quikstart.yaml: no such file"),
    ],
)
def test_a_mistake_on_the_command_line(run_main, arguments, message):
    status, stdout, stderr = run_main(*arguments)
    assert one_line(status, stderr).startswith(message)
    assert stdout == ""


@pytest.mark.parametrize("command", [(), ("--help",), ("train", "--help")], ids=str)
def test_help_goes_to_standard_output(run_main, command):
    status, stdout, stderr = run_main(*command)
    assert (status, stderr) == (0, "")
    assert stdout.startswith("Usage: rl-posttrain ")


def test_recipes_lists_every_bundled_one(run_main):
    status, stdout, _ = run_main("recipes")
    assert status == 0
    assert [line.split()[0] for line in stdout.splitlines()] == sorted(bundled_recipes())
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in stdout.splitlines())
    status, stdout, _ = run_main("recipes", "--json")
    assert json.loads(stdout).keys() == bundled_recipes().keys()


def test_doctor_tells_each_finding_with_its_fix(run_main):
    status, stdout, _ = run_main("doctor", "--json")
    findings = json.loads(stdout)
    assert status == int(any(finding["status"] == "missing" for finding in findings))
    again, stdout, _ = run_main("doctor")
    assert again == status
    lines = stdout.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == [item["status"] for item in findings]
    for finding in findings:
        assert any(finding["name"] in line and finding["found"] in line for line in lines)
        assert not finding["fix"] or f"fix: {finding['fix']}" in stdout


def test_curves_draw_what_is_there(run_main, tmp_path):
    run = RunDirectory.create(tmp_path / "made-up", recipe_yaml="algorithm: {num_steps: 2}\n")
    for step in (1, 2):
        run.append_metrics({"step": step, "reward": step / 2, "entropy": 1.0, "seconds": 3.0 * step})
    status, stdout, stderr = run_main("curves", run.path, "--key", "entropy", "--key", "reward", "--smoothing", "2")
    assert (status, stderr) == (0, "")
    assert "made-up" in stdout
    assert "entropy, mean of 2" in stdout
    status, _, stderr = run_main("curves", run.path, "--key", "entrop")
    assert "did you mean 'entropy'?" in one_line(status, stderr)


# As a user meets it: in a process of its own.


def test_process_unknown_key():
    done = run_command("train", "quickstart", "rollout.max_tokens=3", fresh=True)
    assert one_line(done.returncode, done.stderr) == (
        "rollout.max_tokens=3: unknown key; did you mean 'max_new_tokens'?"
    )


def test_process_broken_yaml(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("run: {name: x\nmodel: [")
    done = run_command("train", path, fresh=True)
    assert one_line(done.returncode, done.stderr).startswith(f"RECIPE={path}: cannot be read as YAML: ")


def test_process_a_hub_model_without_network(tiny_recipe, tmp_path):
    overrides = ("model.name=no-such-owner/no-such-model", f"run.output_dir={tmp_path}")
    done = run_command("train", tiny_recipe, *PLAIN, *overrides)
    text = one_line(done.returncode, done.stderr)
    assert text.startswith("model.name=no-such-owner/no-such-model: ")
    assert "check the name, the network and HF_TOKEN" in text
    assert os.listdir(tmp_path) == []


def test_process_vllm_asked_for_and_broken(tiny_recipe, tmp_path):
    broken = tmp_path / "packages" / "vllm"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libcuda.so.1: cannot open\\nshared object file')\n")
    overrides = (f"run.output_dir={tmp_path}/runs",)
    done = run_command("train", tiny_recipe, *overrides, fresh=True, PYTHONPATH=str(broken.parent))
    text = one_line(done.returncode, done.stderr)
    assert text.startswith(
        "rollout.engine=vllm: vLLM cannot be imported (ImportError: libcuda.so.1: cannot open shared"
    )
    assert "cannot open shared object file); pip install vllm" in text
    assert "or set rollout.engine=transformers" in text
    assert "loading /" not in done.stdout, "the model was loaded first"
    assert not list((tmp_path / "runs").glob("*"))


@pytest.mark.parametrize("how", ["os._exit(0)", "sys.exit(0)"])
def test_a_reward_that_ends_the_process_in_a_step_is_a_failure_with_a_reason(tiny_recipe, tmp_path, how):
    file = tmp_path / "leaves.py"
    file.write_text(f"import os, sys\ndef reward(completions, **kwargs):\n    {how}\n")
    changes = [f"rewards.0.fn={file}:reward", f"run.output_dir={tmp_path}/runs", "rollout.engine=transformers"]
    done = run_command("train", tiny_recipe, *changes, "distributed.engine=none")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("rl-posttrain: ")]
    assert f"rewards.0.fn=reward: {'called os._exit(0)' if '_' in how else 'raised SystemExit(0)'}" in line
    assert " on row 0 of 16, prompt " in line
    assert "Traceback" not in done.stderr


def test_a_home_folder_in_an_option_is_made_whole(run_main, monkeypatch, tmp_path):
    """No shell fills in the ~ of `--out=~/x`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adamw.csv").write_text("step,reward\n1,0.25\n2,0.5\n")
    status, stdout, _ = run_main("report", "~/adamw.csv", "--out=~/there")
    assert status == 0
    assert f"report  {tmp_path}/there/index.html" in stdout.replace("\n", "")
    assert (tmp_path / "there").is_dir()
    assert not list(tmp_path.glob("~*"))
