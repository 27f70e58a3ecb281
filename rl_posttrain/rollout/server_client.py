"""One server over HTTP: its completions, its weights, and why it cannot be used where that is so."""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rl_posttrain.errors import RecipeError, one_line
from rl_posttrain.machine.tools import SERVER_TOKEN
from rl_posttrain.rollout.completion import Completion
from rl_posttrain.rollout.server_guard import is_loopback

if TYPE_CHECKING:
    from aiohttp import ClientSession

# A request that did not reach the server is sent again after these seconds.
_RETRY_AFTER_S = (0.5, 1.0, 2.0)
_CONNECT_S = 5.0
# More would need more open files than many systems allow to a process, which is 1,024.
_CONNECTIONS, _CONNECTIONS_A_SERVER = 800, 256


class ServerError(Exception):
    """A server cannot be used just now; the message says why, on one line and without its address."""


def check_addresses(addresses: Sequence[str]) -> None:
    """Fail where a token would be needed and there is none.

    Raises:
        RecipeError: a server is on another host, which without a token takes nobody's requests.
    """
    for address in addresses:
        if not is_loopback(urlsplit(address).hostname or "") and not os.environ.get(SERVER_TOKEN):
            raise RecipeError(
                f"rollout.servers: {address} is not on this host's loopback, and such a server asks for a token; set "
                f"{SERVER_TOKEN} in the environment of the server and of this command"
            )


def open_session() -> "ClientSession":
    """What requests go through, with the token of the environment; open it inside of the loop that uses it."""
    import aiohttp

    token = os.environ.get(SERVER_TOKEN)
    return aiohttp.ClientSession(
        # A connection that the server has closed meanwhile would fail the next request on it.
        connector=aiohttp.TCPConnector(limit=_CONNECTIONS, limit_per_host=_CONNECTIONS_A_SERVER, force_close=True),
        headers={"Authorization": f"Bearer {token}"} if token else {},
    )


class Server:
    """One address.

    Args:
        address: such as http://127.0.0.1:8000.
        timeout_s: of a request that moves weights or asks for the server's state.
    """

    def __init__(self, address: str, timeout_s: float):
        self.address, self._timeout_s = address, timeout_s
        self.left_out: str | None = "it was not asked yet"
        """Why it is not used; None where it is."""

    async def call(
        self,
        http: "ClientSession",
        method: str,
        *arguments: Any,
        retries: bool = True,
        limit_s: float | None = None,
        is_limited: bool = True,
    ) -> Any:
        """What the server's workers answer to a call of `ServerWorker`; the first one's where they say the same.

        Args:
            retries: whether it is sent again where there is no connection.
            limit_s: for the answer; None is the server's `timeout_s`.
            is_limited: whether there is a limit at all.

        Raises:
            ServerError: they do not, or the server does not answer.
        """
        body = {"method": f"rl_posttrain_{method}", "args": list(arguments)}
        limit_s = (limit_s or self._timeout_s) if is_limited else None
        answer = await self._post(http, "/collective_rpc", body, limit_s=limit_s, retries=retries)
        results = answer["results"]
        if any(result != results[0] for result in results):
            raise ServerError(f"its {len(results)} workers answer {method} differently")
        return results[0]

    async def complete(
        self, http: "ClientSession", prompt: list[int], seed: int, options: Mapping[str, Any]
    ) -> Completion:
        """One completion of a prompt.

        Raises:
            ServerError: the server does not give it.
        """
        body = {
            "prompt": prompt,
            "seed": seed,
            "logprobs": 0,  # of the sampled token alone
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            **options,
        }
        [choice] = (await self._post(http, "/v1/completions", body, limit_s=None))["choices"]
        tokens, reason = choice["token_ids"], choice["finish_reason"]
        if reason not in ("stop", "length"):
            raise ServerError(f"it ended a completion by {reason!r}")
        if reason == "length" and len(tokens) < options["max_tokens"]:
            raise ServerError(
                f"it cut a completion at {len(tokens)} tokens of {options['max_tokens']}; start it with a larger "
                "MAX_TOKENS, or without a max_new_tokens of its own"
            )
        return Completion(
            prompt_ids=prompt, token_ids=tokens, finish_reason=reason, logprobs=choice["logprobs"]["token_logprobs"]
        )

    async def _post(
        self, http: "ClientSession", path: str, body: Mapping[str, Any], *, limit_s: float | None, retries: bool = True
    ) -> Any:
        """The server's answer; a request that gets no connection is sent again, later each time."""
        import aiohttp

        limits = aiohttp.ClientTimeout(total=limit_s, sock_connect=_CONNECT_S)
        for wait_s in (*(_RETRY_AFTER_S if retries else ()), None):
            try:
                # No redirect: the token is for this address alone.
                async with http.post(self.address + path, json=body, timeout=limits, allow_redirects=False) as response:
                    return _answer(response.status, await response.read(), path)
            except TimeoutError:
                raise ServerError(f"it did not answer in {limit_s or _CONNECT_S:g} s") from None
            except aiohttp.ClientConnectorCertificateError as error:
                said = one_line(error.certificate_error, limit=160)
                raise ServerError(
                    f"its certificate is not trusted here ({said}); set SSL_CERT_FILE to that of its authority"
                ) from None
            except aiohttp.ClientConnectorSSLError:
                raise ServerError("it speaks no TLS; write http:// in front of its address") from None
            except (aiohttp.ClientError, OSError) as error:
                if wait_s is None:
                    raise ServerError(f"it cannot be reached ({one_line(error, limit=120)})") from None
                await asyncio.sleep(wait_s)
        raise AssertionError("the last try returns or raises")


def _answer(status: int, body: bytes, path: str) -> Any:
    """The JSON of an answer.

    Raises:
        ServerError: it is none, or says that the request failed.
    """
    if status in (401, 403):
        said = f"set {SERVER_TOKEN} to the same token in the environment of the server and of this command"
        raise ServerError(f"it refuses the token of this command, or the lack of one (HTTP {status}); {said}")
    if status == 404:
        raise ServerError(f"it has no {path}; start it by launch/vllm_server.sh")
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if answer is None:
        raise ServerError(
            f"it answers {path} by HTTP {status} without JSON; check that it is a server of launch/vllm_server.sh"
        )
    if status != 200:
        text = answer.get("error", answer) if isinstance(answer, dict) else answer
        said = text.get("message", text) if isinstance(text, dict) else text
        raise ServerError(f"it answers {path} by HTTP {status} ({one_line(Exception(said), limit=200)})")
    return answer
