"""Addresses behind which there is no server of ours: what a user reads."""

import asyncio
import http.server
import shutil
import ssl
import subprocess
import threading

import pytest

from rl_posttrain.rollout.server_client import Server, ServerError, open_session


@pytest.fixture
def web(tmp_path):
    """Starts web servers on ports of loopback."""
    started = []

    def start(tls: bool) -> int:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
        if tls:
            key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
            make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other.example"
            subprocess.run([*make.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        started.append((server, thread))
        return server.server_port

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


def said(address: str) -> str:
    async def ask() -> None:
        async with open_session() as http:
            await Server(address, 10.0).call(http, "describe")

    with pytest.raises(ServerError) as error:
        asyncio.run(ask())
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_web_server_that_is_no_vllm_is_named(web):
    port = web(tls=False)
    assert said(f"http://127.0.0.1:{port}") == (
        "it answers /collective_rpc by HTTP 501 without JSON; check that it is a server of launch/vllm_server.sh"
    )
    assert said(f"https://127.0.0.1:{port}") == "it speaks no TLS; write http:// in front of its address"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_that_is_not_trusted_is_named_at_once(web):
    line = said(f"https://127.0.0.1:{web(tls=True)}")
    assert line.startswith("its certificate is not trusted here (")
    assert "self-signed certificate" in line
    assert line.endswith("; set SSL_CERT_FILE to that of its authority")
