"""Two machines as two network namespaces with a link between them, each with a loopback address of its own."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

LINK, ADDRESSES = "between", ("10.213.77.1", "10.213.77.2")


@contextlib.contextmanager
def two_networks() -> Iterator[tuple[str, str]]:
    """Their names, for `ip netns exec`; where there can be none, the test is skipped."""
    if os.getuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    names = (f"machine-0-{os.getpid()}", f"machine-1-{os.getpid()}")
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", LINK, "netns", names[0], "type", "veth", "peer", "name", LINK, "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", LINK)
            for device in ("lo", LINK):
                _ip("-n", name, "link", "set", device, "up")
        yield names
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def cut(name: str) -> None:
    """Take the link away, as a cable that is drawn: nothing arrives, and nobody is told."""
    _ip("-n", name, "link", "set", LINK, "down")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
