#!/usr/bin/env bash
# What a plain PyTorch script learns in the same steps, one ingredient at a time, and in ten minutes. For a Python that has PyTorch, and a GPU.
# DATA, ONLY, COMMIT and LOGS are those of experiments/run; SET are options for all runs, after those of the line. The last four want flash-linear-attention.
set -euo pipefail
cd "$(dirname "$0")/../.."
logs=${LOGS:-experiments/peers/logs}
mkdir -p "$logs"
text=$(mktemp)
trap 'rm -f "$text"' EXIT
xz -dc "${DATA:-data}/wiki66.txt.xz" >"$text"
machine=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)
commit=${COMMIT:-$(git rev-parse --short HEAD)}
failed=0

peer() {  # NAME OPTION...
  local name=$1
  shift
  set -- "$@" ${SET:-}
  case ",${ONLY:-$name}," in *",$name,"*) ;; *) return ;; esac
  printf '{"run": "%s", "experiment": "peers", "set": "%s", "program": "bench/torch_learning.py", "commit": "%s", "machine": "%s", "date": "%s", "seed": 1}\n' \
    "$name" "$*" "$commit" "$machine" "$(date -u +%F)" >"$logs/$name.jsonl"
  if python3 bench/torch_learning.py "$text" --name "$name" "$@" >>"$logs/$name.jsonl"; then
    echo '{"end": true}' >>"$logs/$name.jsonl"
  else
    failed=1
    echo '{"error": "bench/torch_learning.py failed"}' >>"$logs/$name.jsonl"
  fi
}

peer base
peer vres --value-residual learned
peer convAC --convolution AC
peer convA --convolution A
peer wide --width 768 --layers 12 --heads 12
peer zero --zero-branches
peer relu2 --activation relu2
peer ns4 --newton-schulz polar
peer bigram --bigrams
peer bitri --bigrams --hashed 262144
peer bitri4 --bigrams --hashed 262144 --hashed-four
peer ten-minutes-dense-3072 --minutes 10 --batch 8 --context 3072 --layers 12 --width 640 --heads 10 --rate 6e-3 --value-residual fixed --convolution C \
  --weight-decay 0.1 --warmup 150 --test-from 65200000
# What a user would pick instead, with attention's place taken by a recurrence: the same embeddings, feed-forward, recipe, bytes a step and minutes.
linear="--minutes 10 --batch 2 --context 12288 --test-context 12288 --width 640 --rate 6e-3 --convolution C --weight-decay 0.1 --warmup 150 --test-from 65200000"
peer two-minutes-gated-deltanet $linear --minutes 2 --width 512 --model gated-deltanet --layers 12 --heads 4 --head-dim 128 --context-schedule "3072 until 0.7"
peer two-minutes-mamba2 $linear --minutes 2 --width 512 --model mamba2 --layers 12 --context-schedule "3072 until 0.7"
peer ten-minutes-gated-deltanet $linear --model gated-deltanet --layers 12 --heads 5 --head-dim 128 --context-schedule "3072 until 0.7"
peer ten-minutes-mamba2 $linear --model mamba2 --layers 12 --context-schedule "3072 until 0.7"
exit "$failed"
