#!/usr/bin/env bash
# Fashion-MNIST in minutes: bits a dimension that can be put beside published ones.
exec "$(dirname "$0")/../run" "$0" <<'RUNS'
strided           fast.toml  sample:--count=16
strided-2         fast.toml  train.seed=2
strided-dropout   fast.toml  train.dropout=0.25
dense             fast.toml  model.pattern=dense
RUNS
