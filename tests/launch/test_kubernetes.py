"""launch/kubernetes.yaml: what its pods tell launch/torchrun.sh. No cluster is here."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def parts() -> tuple[dict, dict]:
    """The service and the job."""
    service, job = yaml.safe_load_all((ROOT / "launch" / "kubernetes.yaml").read_text())
    return service, job


@pytest.mark.parametrize("number", [0, 1])
def test_each_pod_starts_torchrun_as_one_machine_of_the_job(parts, tmp_path, number):
    """A python that says what it was told stands in the place of torchrun's."""
    _, job = parts
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (tmp_path / "launch").mkdir()
    shutil.copy(ROOT / "launch" / "torchrun.sh", tmp_path / "launch")
    for name, text in {"python": 'printf "%s\\n" "$@"', "nvidia-smi": "echo 'GPU 0: some'"}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    told = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for variable in container["env"]:
        if "value" in variable:
            told[variable["name"]] = variable["value"]
        else:
            assert variable["valueFrom"]["fieldRef"]["fieldPath"] == index
            told[variable["name"]] = str(number)
    done = subprocess.run(
        [*container["command"], *container["args"]], capture_output=True, text=True, cwd=tmp_path, env=told
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        *("-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(number)),
        *("--master-addr", "long-0.long", "--master-port", "29500", "--nproc-per-node", "gpu"),
        *("--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGUSR1", "--shutdown-timeout", "280"),
        *("-m", "rl_posttrain", "train", *container["args"]),
    ]


def test_the_first_pod_has_the_name_that_the_others_look_for(parts):
    service, job = parts
    spec = job["spec"]
    pod = spec["template"]["spec"]
    names = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
    # A pod of an indexed job is called JOB-INDEX, and has an address in the service that `subdomain` names.
    assert names["MASTER_ADDR"] == f"{job['metadata']['name']}-0.{pod['subdomain']}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert (spec["completionMode"], service["spec"]["clusterIP"]) == ("Indexed", "None")
    assert spec["completions"] == spec["parallelism"] == int(names["NNODES"])
    # torchrun has ended before Kubernetes kills it.
    assert int(names["GRACE_S"]) < pod["terminationGracePeriodSeconds"]


def test_the_volumes_are_there_and_the_run_is_kept_on_the_shared_one(parts):
    pod = parts[1]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    (kept,) = (word.partition("=")[2] for word in container["args"] if word.startswith("run.output_dir="))
    assert "persistentVolumeClaim" in mounted[kept]
    assert mounted["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    assert re.fullmatch(r"\d+Gi", mounted["/dev/shm"]["emptyDir"]["sizeLimit"])
