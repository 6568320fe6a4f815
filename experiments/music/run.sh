#!/usr/bin/env bash
# Recordings at n = 65,536 by both recipes, and at n = 262,144 (22 s in view). Then 21 hours of piano: samples, and 20 s of which the first 4 or 8 are given.
exec "$(dirname "$0")/../run" "$0" <<'RUNS'
music-fast        fast.toml
music-paper       paper.toml
n65536            fast.toml  train.minutes=2 sample:--length=120000
n262144           fast.toml  train.minutes=2 model.context=262144 model.pattern=strided:512 train.validate_every=200 sample:--length=120000
piano             piano.toml sample:--length=120000 continue:--prime=test:0 continue:--prime-seconds=4 continue:--length=240000
piano262144       piano.toml model.context=262144 model.pattern=strided:512 sample:--length=240000 continue:--prime=test:0 continue:--prime-seconds=8 continue:--length=240000
RUNS
