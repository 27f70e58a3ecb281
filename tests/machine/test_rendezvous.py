"""What a run listens on: the loopback address alone, so that nobody else on the network reaches it."""

import ipaddress
import os
import subprocess
from pathlib import Path

import pytest
from conftest import clean_environment, command, run_python


def listening(pid: int) -> set[str]:
    """The addresses on which a process listens, from /proc."""
    inodes = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(os.readlink(handle).removeprefix("socket:[").removesuffix("]"))
        except OSError:  # closed meanwhile
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and inode in inodes:
                # Words of 4 bytes, each in the machine's order.
                words = bytes.fromhex(local.partition(":")[0])
                packed = b"".join(words[place : place + 4][::-1] for place in range(0, len(words), 4))
                found.add(str(ipaddress.ip_address(packed)))
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs /proc")
@pytest.mark.parametrize("engine", ["distributed.engine=deepspeed", "distributed.engine=none"])
def test_a_run_listens_on_loopback_alone(tiny_recipe, tmp_path, engine):
    """With vLLM, under DeepSpeed and plain PyTorch."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    script = (
        f"import os, sys\nsys.path[:0] = {paths}\nfrom test_rendezvous import listening\n"
        "from rl_posttrain.rollout.vllm import VLLMEngine\nwhole = VLLMEngine.generate\n"
        "def generate(self, *arguments):\n"
        "    print('listens on', sorted(listening(os.getpid())), flush=True)\n"
        "    return whole(self, *arguments)\n"
        "VLLMEngine.generate = generate\nfrom rl_posttrain.cli.main import main\nmain()"
    )
    done = run_python("-c", script, "train", tiny_recipe, engine, "algorithm.num_steps=1", f"run.output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("listens on")]
    assert set(said) == {"listens on ['127.0.0.1']"}


def test_torchs_store_would_listen_everywhere(tmp_path):
    """What the loopback is for; and groups that follow one another on one port share the store."""
    script = tmp_path / "store.py"
    script.write_text(
        "import os, sys, torch.distributed as dist\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_rendezvous import listening\n"
        "from rl_posttrain.machine import process\nprocess.prepare_process(verbose=False)\n"
        "if 'ours' in sys.argv:\n"
        "    from rl_posttrain.machine.rendezvous import prepare_rendezvous\n    prepare_rendezvous()\n"
        "for _ in range(2):\n"
        "    dist.init_process_group('gloo')\n    found = listening(os.getpid())\n    dist.destroy_process_group()\n"
        "print(sorted(found - {'127.0.0.1'}))\n"
    )
    environment = clean_environment(PYTHONPATH=str(Path(__file__).parents[1]))
    for words, expected in ((["ours"], "[]"), ([], "['::']")):
        done = subprocess.run(
            [command()[0], script, *words], capture_output=True, text=True, env=environment, check=True
        )
        assert done.stdout.strip().splitlines()[-1] == expected
