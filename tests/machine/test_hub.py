"""The hub without a network: asked once, quietly and shortly; the cache keeps working."""

import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from conftest import clean_environment, command

from rl_posttrain.errors import HubError
from rl_posttrain.machine import hub as the_hub
from rl_posttrain.models.find import check_source, load_config
from rl_posttrain.rollout.prompts import load_tokenizer


@pytest.fixture
def cached(tiny_model, tmp_path, monkeypatch) -> str:
    """The tiny model in a cache of its own, as a model of the hub."""
    import huggingface_hub.constants

    folder = tmp_path / "hub/models--me--tiny"
    shutil.copytree(tiny_model, folder / "snapshots/0123")
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("0123")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(the_hub, "_answers", {})
    return "me/tiny"


@pytest.fixture
def silent_hub():
    """An address that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", listener


def requests_to(listener: socket.socket) -> list[bytes]:
    """The first line of what is asked, which fills while the listener is open."""
    asked = []

    def take():
        kept = []
        while True:
            try:
                kept.append(listener.accept()[0])
                asked.append(kept[-1].recv(1000).partition(b"\r\n")[0])
            except OSError:
                return

    threading.Thread(target=take, daemon=True).start()
    return asked


def test_a_command_without_a_network_ends_in_one_line(tiny_recipe, tmp_path, silent_hub):
    """As a user runs it, for a hub that takes connections and never answers."""
    environment = clean_environment(HF_ENDPOINT=silent_hub[0], HF_HUB_OFFLINE="0", HF_HOME=str(tmp_path))
    arguments = ("train", tiny_recipe, "model.name=nobody/none", f"run.output_dir={tmp_path}")
    done = subprocess.run(command(*arguments), capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("rl-posttrain: model.name=nobody/none: not ")
    assert "no local folder, and the hub did not give it (it cannot be reached: ReadTimeout)" in done.stderr
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "model.name=nobody/none"), "model.name=nobody/none: "),
        (("train", "algorithm.name=ppo", "critic.model=nobody/none"), "critic.model=nobody/none: "),
        (("train", "task={name: file, path: nobody/none}"), "task.path=nobody/none: "),
        (("eval", "nobody/none", "--task", "arithmetic", "--engine", "transformers"), "MODEL=nobody/none: "),
    ],
)
def test_each_place_that_asks_the_hub_asks_once_and_says_one_line(
    tiny_recipe, tmp_path, silent_hub, monkeypatch, run_main, arguments, said
):
    address, listener = silent_hub
    asked = requests_to(listener)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(the_hub, "_answers", {})
    monkeypatch.setattr(the_hub, "_PROBE_S", 0.5)
    name, *more = arguments
    if name == "train":
        more = [tiny_recipe, *more, f"run.output_dir={tmp_path}"]
    status, _, stderr = run_main(name, *more)
    assert (status, stderr.count("\n")) == (2, 1), stderr
    assert stderr.startswith(f"rl-posttrain: {said}")
    assert "the hub did not give it (it cannot be reached: ReadTimeout)" in stderr
    assert len([line for line in asked if b"nobody/none" in line]) == 1


@pytest.mark.parametrize("offline", [True, False])
def test_a_model_in_the_cache_loads_without_a_network(cached, monkeypatch, offline):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    check_source(cached)
    assert load_config(cached).model_type == "llama"
    assert load_tokenizer(cached, name=cached)("1")["input_ids"]
    import huggingface_hub.constants

    assert huggingface_hub.constants.HF_HUB_OFFLINE is offline, "it is put back"


def test_without_the_cache_the_variable_is_named(cached, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set, and it was not loaded before"):
        check_source("nobody/none")


def test_nothing_is_asked_about_a_folder(tiny_model, monkeypatch):
    monkeypatch.setattr(the_hub, "why_not_reached", lambda *arguments: pytest.fail("the hub was asked"))
    assert load_config(str(tiny_model)).model_type == "llama"
    with the_hub.hub(str(Path(tiny_model))) as reason:
        assert reason is None
