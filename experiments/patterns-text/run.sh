#!/usr/bin/env bash
# Which keys pay on text: dense, fixed and strided (Table 2), each head's own keys, and the three ways to integrate two kinds.
exec "$(dirname "$0")/../run" "$0" <<'RUNS'
dense             fast.toml   model.pattern=dense
fixed             fast.toml   model.pattern=fixed:128,32
spread            fast.toml   model.pattern=spread-fixed:128,32
strided           fast.toml   model.pattern=strided:128
fixed-2           fast.toml   model.pattern=fixed:128,32 train.seed=2
spread-2          fast.toml   model.pattern=spread-fixed:128,32 train.seed=2
strided-2         fast.toml   model.pattern=strided:128 train.seed=2
dense-2           fast.toml   model.pattern=dense train.seed=2
paper-dense       paper.toml  model.pattern=dense
paper-fixed       paper.toml  model.pattern=fixed:128,32
paper-strided     paper.toml  model.pattern=strided:128
fixed-interleaved fast.toml   model.pattern=block:128,summary:128,32
fixed-heads       fast.toml   model.pattern=block:128|summary:128,32
RUNS
