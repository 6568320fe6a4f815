#!/usr/bin/env bash
# Five minutes of CIFAR-10's first 4,000 pictures with the pattern that the paper takes for pictures, by both recipes. Then 600 pictures of 64 x 64: samples, and
# pictures of which the top half is given.
exec "$(dirname "$0")/../run" "$0" <<'RUNS'
cifar-fast   experiments/patterns-pictures/fast.toml   model.pattern=strided:96 train.minutes=5 train.validate_every=1000 sample:--count=9
cifar-paper  experiments/patterns-pictures/paper.toml  model.pattern=strided:96 train.minutes=5 train.validate_every=1000
imagenet64   imagenet64.toml  sample:--count=9 continue:--prime=test:3 continue:--count=5
RUNS
