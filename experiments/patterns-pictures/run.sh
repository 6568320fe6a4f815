#!/usr/bin/env bash
# Which keys pay on pictures: dense, strided and fixed (Table 2), and each head's own keys.
exec "$(dirname "$0")/../run" "$0" <<'RUNS'
dense             fast.toml   model.pattern=dense
strided           fast.toml   model.pattern=strided:96
fixed             fast.toml   model.pattern=fixed:96,24
spread            fast.toml   model.pattern=spread-fixed:96,24
dense-2           fast.toml   model.pattern=dense train.seed=2
strided-2         fast.toml   model.pattern=strided:96 train.seed=2
fixed-2           fast.toml   model.pattern=fixed:96,24 train.seed=2
paper-dense       paper.toml  model.pattern=dense
paper-strided     paper.toml  model.pattern=strided:96
paper-fixed       paper.toml  model.pattern=fixed:96,24
RUNS
