#!/usr/bin/env bash
# Bits against the context that was trained with, and against the least context in view.
exec "$(dirname "$0")/../run" "$0" <<'RUNS'
n3072    context.toml  eval:--min-context=0,768,1536,2304
n12288   context.toml  model.context=12288 train.batch=21 model.pattern=spread-fixed:128,16 eval:--min-context=0,3072,6144,9216
n65536   context.toml  model.context=65536 train.batch=4 model.pattern=spread-fixed:256,32 eval:--min-context=0,16384,32768,49152
n262144  context.toml  model.context=262144 train.batch=1 model.pattern=spread-fixed:512,64 eval:--min-context=0,65536,131072,196608
RUNS
