"""A model whose files are damaged, missing or of other shapes is named in one line, in training and in `eval`."""

import json
import shutil

import pytest

DAMAGES = {
    "cut": lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:999]),
    "without weights": lambda folder: (folder / "model.safetensors").unlink(),
    "of other shapes": lambda folder: (folder / "config.json").write_text(
        json.dumps(json.loads((folder / "config.json").read_text()) | {"hidden_size": 32})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_named_and_leaves_no_run(tiny_model, tiny_recipe, tmp_path, run_main, damage):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    DAMAGES[damage](folder)
    status, _, stderr = run_main(
        "train", tiny_recipe, f"model.name={folder}", f"run.output_dir={tmp_path / 'runs'}", "distributed.engine=none",
        "rollout.engine=transformers",
    )  # fmt: skip
    assert (status, stderr.count("\n")) == (2, 1), stderr
    assert stderr.startswith(f"rl-posttrain: model.name={folder}: its weights ")
    assert stderr.endswith("; copy or save the whole model again\n")
    assert not any((tmp_path / "runs").glob("*"))
    status, _, stderr = run_main(
        "eval", folder, "--task", "arithmetic", "--engine", "transformers", "--out", tmp_path / "evaluation",
        "rollout.max_new_tokens=4",
    )  # fmt: skip
    (said,) = (line for line in stderr.splitlines() if line.startswith("rl-posttrain: "))
    assert status == 2
    assert said.startswith(f"rl-posttrain: MODEL={folder}: its weights ")
