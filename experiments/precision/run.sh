#!/usr/bin/env bash
# f32, bf16 and f16 on each other, equal steps; a second seed of bf16 says how much chance there is.
exec "$(dirname "$0")/../run" "$0" <<'RUNS'
f32               precision.toml  compute.precision=f32
bf16              precision.toml  compute.precision=bf16
f16               precision.toml  compute.precision=f16
bf16-2            precision.toml  compute.precision=bf16 train.seed=2
RUNS
