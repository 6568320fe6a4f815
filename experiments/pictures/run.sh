#!/usr/bin/env bash
# Five minutes of CIFAR-10's first 4,000 pictures with the pattern that the paper takes for pictures, by both recipes.
exec "$(dirname "$0")/../run" "$0" <<'RUNS'
cifar-fast   experiments/patterns-pictures/fast.toml   model.pattern=strided:96 train.minutes=5 train.validate_every=1000 sample:--count=9
cifar-paper  experiments/patterns-pictures/paper.toml  model.pattern=strided:96 train.minutes=5 train.validate_every=1000
RUNS
