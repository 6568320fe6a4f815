#!/usr/bin/env bash
# One run on several GPUs beside one, in turns, as JSON lines: the batch shared (the paper's Enwik8 model, Adam and Muon), and sequences
# of a million bytes shared (eight layers of 512, fixed, strided and spread).
#
#   bench/gpu_ranks.sh LONGSTRIDE DATA GPUS [TURNS] [batch|sequence] > FILE
#
# DATA is any file of 8 MB or more. NCCL has to be found: LD_LIBRARY_PATH. Each line: what ran, tokens a second of the last
# interval, the loss, memory used and planned.
set -euo pipefail
longstride=$(realpath "$1") data=$(realpath "$2") gpus=$3 turns=${4:-3} what=${5:-both}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

config() {  # CONTEXT LAYERS PATTERN
  cat > config.toml <<TOML
[model]
context = $1
layers = $2
heads = 8
width = 512
pattern = "$3"
positions = "rotary"
qk_norm = true
[data]
kind = "text"
path = "$data"
split = [6000000, 1048576, 0]
[train]
recipe = "fast"
learning_rate = 1e-3
warmup = 5
context_schedule = ""
validate_every = 0
validate_bytes = 12288
checkpoint_every = 0
TOML
}

measure() {  # NAME ARGUMENT...
  local name=$1
  shift
  rm -rf run
  if "$longstride" train config.toml --run run --quiet --json "$@" > result.json 2> errors.txt; then
    python3 -c 'import json, sys; d = json.load(open("result.json")); print(json.dumps({"case": sys.argv[1], **{k: d[k] for k in
      ("tokens_per_second", "train_bits", "peak_memory", "planned_memory")}}), flush=True)' "$name"
  else
    python3 -c 'import json, sys; print(json.dumps({"case": sys.argv[1], "error": open("errors.txt").read().strip()}), flush=True)' "$name"
  fi
}

for turn in $(seq "$turns"); do
  config 12288 30 fixed:128,32
  for optimizer in adam muon; do
    [ "$what" = sequence ] && continue
    settings="--set train.optimizer=$optimizer --set train.steps=80 --set train.log_every=60 --set train.activations=keep --set train.batch"
    measure "batch $optimizer 1 GPU, turn $turn" --device cuda:0 $settings=2
    measure "batch $optimizer $gpus GPUs, turn $turn" --gpus "$gpus" $settings=$((2 * gpus))
    measure "batch $optimizer $gpus GPUs, the optimizer shared, turn $turn" --gpus "$gpus" --set compute.shard_optimizer=true \
      $settings=$((2 * gpus))
  done
  for pattern in fixed:1024,32 strided:1024 spread-fixed:1024,32; do
    [ "$what" = batch ] && continue
    config 1048576 8 "$pattern"
    for activations in recompute keep; do
      settings="--set train.steps=6 --set train.log_every=3 --set train.activations=$activations --set train.batch=1"
      measure "sequence $pattern 1 GPU, $activations, turn $turn" --device cuda:0 $settings
      measure "sequence $pattern $gpus GPUs, $activations, turn $turn" --gpus "$gpus" --parallel sequence="$gpus" $settings
    done
  done
done
