"""Seconds in which a server gets the bundled model's weights: as files, and by gloo over loopback, in turn.

    python experiments/speed/weight_transfer.py [--syncs 10] [--servers 1]

It starts the servers by launch/vllm_server.sh, and ends them. The first sync of each way does not count.
"""

import argparse
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rl_posttrain.machine.process import free_port

MODEL = "smollm2-135m-instruct"
SCRIPT = Path(__file__).parents[2] / "launch" / "vllm_server.sh"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--syncs", type=int, default=10)
    parser.add_argument("--servers", type=int, default=1)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as ends:
        addresses = [ends.enter_context(server()) for _ in range(arguments.servers)]
        seconds = {name: [] for name in ("files", "gloo")}
        for _ in range(2):
            for name, measured in seconds.items():
                measured += syncs(addresses, name, arguments.syncs // 2)
    medians = {name: statistics.median(measured) for name, measured in seconds.items()}
    for name, measured in seconds.items():
        print(f"{name:>6}: {medians[name]:.2f} s ({min(measured):.2f} to {max(measured):.2f}, {len(measured)} syncs)")
    print(f"  gloo / files: {medians['gloo'] / medians['files']:.2f}")


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A server's address."""
    port = free_port()
    environment = os.environ | {"PYTHON": sys.executable, "PORT": str(port), "VLLM_CPU_KVCACHE_SPACE": "1"}
    with open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(["bash", str(SCRIPT)], env=environment, stdout=nowhere, stderr=nowhere)
    try:
        while not answers(port):
            if process.poll() is not None:
                raise SystemExit("the server ended; start launch/vllm_server.sh by hand to see why")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def answers(port: int) -> bool:
    """Whether a server is ready."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as asked:
        asked.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        return b" 200 " in asked.recv(100)
    return False


def syncs(addresses: list[str], weight_transfer: str, number: int) -> list[float]:
    """Seconds of each sync but the first."""
    import torch
    from transformers import AutoModelForCausalLM

    from rl_posttrain.models.find import resolve_model
    from rl_posttrain.rollout.served_run import ServedRun
    from rl_posttrain.rollout.vllm_server import VLLMServers
    from rl_posttrain.rollout.weight_files import default_folder

    model = AutoModelForCausalLM.from_pretrained(resolve_model(MODEL), dtype=torch.float32)
    with tempfile.TemporaryDirectory(dir=default_folder()) as folder:
        served = ServedRun(
            run="weight_transfer",
            config=model.config,
            dtype="bfloat16",
            max_tokens_per_sequence=64,
            folder=Path(folder),
            timeout_s=300.0,
            lease_s=60.0,
            weight_transfer=weight_transfer,
        )
        engine = VLLMServers(addresses, served, print)
        found = []
        for _ in range(number + 1):
            started = time.perf_counter()
            engine.load_weights(model.named_parameters())
            found.append(time.perf_counter() - started)
        engine.close()
    return found[1:]


if __name__ == "__main__":
    main()
