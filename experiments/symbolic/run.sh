#!/usr/bin/env bash
# Piano pieces as MIDI bytes, and C source. The MIDI set is small: dropout, and a smaller model beside it.
exec "$(dirname "$0")/../run" "$0" <<'RUNS'
source            fast.toml  sample:--length=2000
midi              fast.toml  data.path=data/midi.bin.xz train.dropout=0.2
midi-small        fast.toml  data.path=data/midi.bin.xz train.dropout=0.1 model.layers=6 model.width=256 model.heads=4
source-2          fast.toml  train.seed=2
RUNS
