#!/usr/bin/env bash
# Engines on a GPU: the paper's 1.5B recipe for two iterations with each, from one cold start.
#
#     benchmarks/gpu.sh [OUT]                  # runs/gpu by default; RECIPE=webshop-qwen-1-5b takes another recipe
#
# NOT RUN so far. It is written for one machine with an NVIDIA GPU of 80 GB, and with two of them it also measures vLLM on a
# GPU of its own (`nccl`). It sets up .venv-gpu, downloads the model and the games, and takes about an hour. A call that was
# interrupted goes on where it stopped. Its table: tokens a second, seconds by phase, the GPU's memory at its peak, and the
# distance of rollout and trainer. The second iteration is shown: vLLM has had new weights by then.
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${1:-runs/gpu}
RECIPE=${RECIPE:-alfworld-qwen-1-5b}
BIN=.venv-gpu/bin
mkdir -p "$OUT"

if [[ ! -e .venv-gpu/.installed ]]; then
    python3 -m venv .venv-gpu
    $BIN/pip install -e ".[sft,vllm,${RECIPE%%-*}]"
    touch .venv-gpu/.installed
fi
if [[ $RECIPE == alfworld-* ]]; then $BIN/spark-rl env fetch alfworld; fi

if [[ ! -d $OUT/cold/checkpoints/cold-start ]]; then
    rm -rf "$OUT/cold"
    $BIN/spark-rl sft "$RECIPE" --cold-start.demonstrations 64 --out "$OUT/cold"
fi

# measure NAME OPTIONS...: two iterations, and the memory of all GPUs, each second.
measure() {
    local name=$1 watch
    shift
    [[ -e $OUT/$name.done ]] && return
    rm -rf "${OUT:?}/$name"
    nvidia-smi --query-gpu=index,memory.used --format=csv,noheader,nounits -l 1 >"$OUT/$name.memory" &
    watch=$!
    if $BIN/spark-rl train "$RECIPE" --model "$OUT/cold/checkpoints/cold-start" --cold-start.demonstrations 0 --iterations 2 \
        --evaluation.every 0 --evaluation.dev-tasks 8 --evaluation.levels --out "$OUT/$name" "$@"; then
        touch "$OUT/$name.done"
    else
        echo "gpu.sh: $name failed; the table leaves it out" >&2
    fi
    kill $watch
}

measure local --engine local
measure vllm-sleep-1 --engine vllm --engine.cache-gb 0
measure vllm-sleep-2 --engine vllm --engine.cache-gb 0 --engine.sleep 2
measure vllm-compiled --engine vllm --engine.cache-gb 0 --engine.compiled
measure vllm-adapters --engine vllm --engine.cache-gb 0 --weights.lora-rank 32 --optimizer.learning-rate 1e-5
if (($(nvidia-smi --list-gpus | wc -l) > 1)); then
    measure vllm-other-gpu --engine vllm --engine.cache-gb 0 --engine.device 1
fi

$BIN/python - "$OUT" <<'PYTHON'
import json
import sys
from pathlib import Path

print("| engine | tokens a s | generate, s | update, s | whole, s | from cache | GPU, GiB | mean gap | largest gap |")
print("|---" * 9 + "|")
for done in sorted(Path(sys.argv[1]).glob("*.done")):
    run = done.with_suffix("")
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[1])
    most = max(int(line.split(",")[1]) for line in run.with_suffix(".memory").read_text().splitlines())
    print(
        f"| {run.name} | {row['generated'] / row['seconds_generate']:.0f} | {row['seconds_generate']:.0f} "
        f"| {row['seconds_update']:.0f} | {row['seconds']:.0f} | {row['cache_hits']:.0%} | {most / 1024:.1f} "
        f"| {row['update_rollout_gap']:.1e} | {row['update_rollout_gap_max']:.1e} |"
    )
PYTHON
