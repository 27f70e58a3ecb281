"""Who may talk to a server, asked of the guard itself: other addresses cannot be tried on a real one."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import clean_environment

from rl_posttrain.errors import RecipeError
from rl_posttrain.machine.tools import SERVER_TOKEN
from rl_posttrain.rollout.server_client import check_addresses
from rl_posttrain.rollout.server_guard import ServerGuard, is_loopback


def asked(client: str, path: str = "/collective_rpc", kind: str = "http", **headers: str) -> int:
    """The status of an answer; 200 where the request passed."""
    sent = []

    async def server(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})

    async def receive():
        return {"type": f"{kind}.connect"}

    async def send(message):
        sent.append(message)

    named = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "path": path, "headers": named, "client": (client, 5)}
    asyncio.run(ServerGuard(server)(scope, receive, send))
    return sent[0].get("status", sent[0].get("code"))


@pytest.mark.parametrize("path", ["/collective_rpc", "/v1/completions", "/update_weights", "/pause", "//health", "/"])
def test_with_a_token_every_path_needs_it(monkeypatch, path):
    monkeypatch.setenv(SERVER_TOKEN, "word")
    assert asked("127.0.0.1", path, authorization="Bearer word") == 200
    assert asked("10.0.0.7", path, authorization="Bearer word") == 200
    for said in ("Bearer words", "Bearer ", "word", "bearer word", "Basic word"):
        assert asked("127.0.0.1", path, authorization=said) == 401
    assert asked("127.0.0.1", path) == 401
    assert asked("127.0.0.1", path, kind="websocket") == 1008


def test_whether_it_lives_is_no_secret(monkeypatch):
    monkeypatch.setenv(SERVER_TOKEN, "word")
    assert asked("10.0.0.7", "/health") == 200


def test_without_a_token_only_programs_of_this_host_may_ask(monkeypatch):
    monkeypatch.delenv(SERVER_TOKEN, raising=False)
    assert asked("127.0.0.1") == asked("::1") == 200
    assert asked("10.0.0.7") == asked("::ffff:10.0.0.7") == asked("") == 403
    assert asked("127.0.0.1", origin="http://page.example") == 403, "a page in a browser"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "node-3", "", "127.0.0.1.example", "localhost.example"])
def test_not_loopback(host):
    assert not is_loopback(host)


def test_another_host_needs_a_token(monkeypatch):
    monkeypatch.delenv(SERVER_TOKEN, raising=False)
    check_addresses(["http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"])
    with pytest.raises(RecipeError, match=r"rollout.servers: http://node-3:8000 is not on this host"):
        check_addresses(["http://127.0.0.1:8000", "http://node-3:8000"])
    monkeypatch.setenv(SERVER_TOKEN, "word")
    check_addresses(["http://node-3:8000"])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1"])
def test_the_script_listens_elsewhere_only_with_a_token(host):
    script = Path(__file__).parents[2] / "launch" / "vllm_server.sh"
    environment = clean_environment(HOST=host, PYTHON=sys.executable)
    environment.pop(SERVER_TOKEN, None)
    done = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == (
        f"HOST={host}: other hosts could change the weights; set a token in {SERVER_TOKEN}, or HOST=127.0.0.1\n"
    )
