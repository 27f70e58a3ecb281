"""Who may talk to a server: vLLM loads this by ``--middleware``, in front of all of its endpoints.

vLLM's own ``--api-key`` guards the paths of the OpenAI protocol alone, and not those that load weights.
"""

import hashlib
import hmac
import ipaddress
import json
import os
from typing import Any

from rl_posttrain.machine.tools import SERVER_TOKEN

# Whether the server lives, for those that watch it: they tell nothing.
_OPEN_PATHS = ("/health", "/ping")


class ServerGuard:
    """ASGI middleware: where there is a token, every request must bring it; without one, only this host may ask.

    Args:
        app: what answers the requests that may pass.
    """

    def __init__(self, app: Any):
        self._app = app
        token = os.environ.get(SERVER_TOKEN)
        self._expected = _digest(f"Bearer {token}".encode()) if token else None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket") and (refusal := self._refusal(scope)):
            await _refuse(scope, receive, send, *refusal)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Any) -> tuple[int, str] | None:
        """Status and reason where a request may not pass."""
        headers = dict(scope["headers"])
        if scope["path"] in _OPEN_PATHS:
            return None
        if self._expected is not None:
            said = _digest(headers.get(b"authorization", b""))
            return None if hmac.compare_digest(said, self._expected) else (401, "wrong or missing token")
        # A page in a browser on this host can reach loopback, too; it cannot leave out its origin.
        if not is_loopback((scope.get("client") or ("",))[0]) or b"origin" in headers:
            return 403, f"without {SERVER_TOKEN} in the server's environment only programs on its own host may ask"
        return None


def is_loopback(host: str) -> bool:
    """Whether an address, or the name localhost, is this host's own."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _digest(value: bytes) -> bytes:
    """Of equal length for all values, so that comparing takes the same time."""
    return hashlib.sha256(value).digest()


async def _refuse(scope: Any, receive: Any, send: Any, status: int, reason: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": reason})
        return
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
