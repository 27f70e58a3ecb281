#!/usr/bin/env bash
# One server of completions for `rollout.engine: vllm_server`: vLLM's own, with what a trainer needs to give it weights.
#
#   bash launch/vllm_server.sh                          on this host alone, port 8000
#   PORT=8001 CUDA_VISIBLE_DEVICES=3 bash launch/vllm_server.sh
#
# Change here, or set in the environment: MODEL and DTYPE as in the recipe's model section; PORT; MAX_TOKENS, the longest
# prompt and completion together; GPU_SHARE of a GPU's memory. More of vLLM's options may follow on the command line.
# For trainers on other hosts: HOST=0.0.0.0 and a token, VLLM_API_KEY, in the environment of both sides, and in the recipe
# a folder that both see, or rollout.weight_transfer=gloo or nccl (docs/servers.md).
set -euo pipefail
: "${MODEL:=smollm2-135m-instruct}" "${DTYPE:=bfloat16}" "${HOST:=127.0.0.1}" "${PORT:=8000}" "${MAX_TOKENS:=1024}" "${GPU_SHARE:=0.9}"
: "${PYTHON:=python}"

if [[ $HOST != 127.0.0.1 && $HOST != localhost && $HOST != ::1 && -z ${VLLM_API_KEY:-} ]]; then
  echo "HOST=$HOST: other hosts could change the weights; set a token in VLLM_API_KEY, or HOST=127.0.0.1" >&2
  exit 2
fi
# The bundled model is a folder of this machine; other names pass through.
MODEL=$("$PYTHON" -c 'import sys; from rl_posttrain.models.find import resolve_model; print(resolve_model(sys.argv[1]))' "$MODEL")
export VLLM_SERVER_DEV_MODE=1                # the endpoints that take weights; ServerGuard stands in front of them
export VLLM_NO_USAGE_STATS=1
export VLLM_CPU_OMP_THREADS_BIND=nobind      # on a CPU: beside other processes
export VLLM_CPU_KVCACHE_SPACE="${VLLM_CPU_KVCACHE_SPACE:-2}"   # GiB
options=(--gpu-memory-utilization "$GPU_SHARE")
command -v nvidia-smi >/dev/null || options=(--enforce-eager)  # compiling for a CPU takes minutes and gains little
# exec: a signal to this script reaches vLLM, which ends its processes. The first sync brings the weights, so none are read.
exec "$PYTHON" -m vllm.entrypoints.openai.api_server --model "$MODEL" --dtype "$DTYPE" --host "$HOST" --port "$PORT" \
  --max-model-len "$MAX_TOKENS" --load-format dummy --logprobs-mode processed_logprobs --disable-uvicorn-access-log \
  --worker-extension-cls rl_posttrain.rollout.server_worker.ServerWorker \
  --middleware rl_posttrain.rollout.server_guard.ServerGuard "${options[@]}" "$@"
