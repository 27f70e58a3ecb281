#!/usr/bin/env bash
# Train a recipe on one machine or on several: the same command on each of them.
#
#   bash launch/torchrun.sh quickstart run.name=first --auto-resume
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 bash launch/torchrun.sh RECIPE run.name=NAME --auto-resume   # on the first
#   NNODES=2 NODE_RANK=1 MASTER_ADDR=10.0.0.1 bash launch/torchrun.sh RECIPE run.name=NAME --auto-resume   # on the second
#
# What follows the script is what follows `rl-posttrain train`. What to change, by variables:
#   NPROC_PER_NODE  processes on this machine; its GPUs, or 1 where it has none. Machines may have different numbers.
#   NNODES          number of machines; 1.
#   NODE_RANK       this machine's number, from 0. Machine 0 has the main process, which alone shows the run.
#   MASTER_ADDR     address of machine 0, as the others reach it.
#   MASTER_PORT     a free port of machine 0; 29500.
#   GRACE_S         how long torchrun waits after a signal for a step and its checkpoint; 280.
# Other options of torchrun have variables of their own (PET_MAX_RESTARTS=3). docs/launching.md says what machines share.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
[ ! -x "$here/.venv/bin/python" ] || PATH="$here/.venv/bin:$PATH"
if [ -z "${NPROC_PER_NODE:-}" ]; then
    NPROC_PER_NODE=1
    if nvidia-smi -L 2>/dev/null | grep -q '^GPU '; then NPROC_PER_NODE=gpu; fi
fi
if [ "${NNODES:-1}" = 1 ]; then
    meeting=(--standalone)
else
    meeting=(--nnodes "$NNODES" --node-rank "${NODE_RANK:?NODE_RANK= is missing; set the number of this machine, from 0}"
        --master-addr "${MASTER_ADDR:?MASTER_ADDR= is missing; set the address of machine 0}"
        --master-port "${MASTER_PORT:-29500}")
    [ "$NODE_RANK" = 0 ] || echo "machine $NODE_RANK of $NNODES: it trains for the run that $MASTER_ADDR shows" >&2
fi
# exec: whoever signals this script signals torchrun, which hands the signal to its processes.
exec python -m torch.distributed.run "${meeting[@]}" --nproc-per-node "$NPROC_PER_NODE" \
    --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGUSR1 --shutdown-timeout "${GRACE_S:-280}" \
    -m rl_posttrain train "$@"
