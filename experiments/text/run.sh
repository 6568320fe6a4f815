#!/usr/bin/env bash
# What learns most in ten minutes, and in less: sizes, patterns and ingredients around configs/enwik8-ten-minutes.toml.
spread="configs/enwik8-ten-minutes.toml data.path=data/wiki66.txt.xz train.validate_every=0"
fixed="$spread model.pattern=fixed:128,32"
exec "$(dirname "$0")/../run" "$0" <<RUNS
# Ten minutes of the config as it stands; then the pattern with the same keys for all heads.
spread600         $spread
ten               $fixed
# Twenty-five minutes: more weights, and some dropout, because it reads the text a dozen times.
wide25            $spread train.minutes=25 model.width=768 model.heads=12 train.dropout=0.05 eval:--min-context=0,6144 sample:--length=2000
# Ten minutes of two GPUs, twice as many sequences a step (DEVICE=cuda).
two-gpus          $spread model.width=768 model.heads=12 train.dropout=0.05 train.batch=4 train:--gpus=2
# Which size for how long.
conv45            $fixed train.minutes=0.75 model.width=768 model.heads=12 train.learning_rate=3e-3
conv45six         $fixed train.minutes=0.75 model.width=768 model.heads=12
wide45two         $fixed train.minutes=0.75 model.width=768 model.heads=12 train.seed=2
wide120           $fixed train.minutes=2 model.width=768 model.heads=12
small120          $fixed train.minutes=2 model.width=512 model.heads=8
small120two       $fixed train.minutes=2 model.width=512 model.heads=8 train.seed=2
small220          $fixed train.minutes=3.6667 model.width=512 model.heads=8
# Which keys a head sees, and contexts.
spread120         $spread train.minutes=2 model.width=512 model.heads=8
spread120two      $spread train.minutes=2 model.width=512 model.heads=8 train.seed=2
window120         $spread train.minutes=2 model.width=512 model.heads=8 model.pattern=window:256+summary:128,32
long120           $spread train.minutes=2 model.width=512 model.heads=8 model.pattern=fixed:128,32 "train.context_schedule=1024 until 0.1"
long120third      $spread train.minutes=2 model.width=512 model.heads=8 model.pattern=fixed:128,32 "train.context_schedule=1024 until 0.1; 3072 until 0.35"
dense120third     $spread train.minutes=2 model.width=512 model.heads=8 model.pattern=fixed:128,32 "train.context_schedule=1024 until 0.1; 3072 until 0.35" "train.pattern_schedule=dense until 0.35"
rate120           $spread train.minutes=2 model.width=512 model.heads=8 model.pattern=fixed:128,32 "train.context_schedule=1024 until 0.1; 3072 until 0.2" train.learning_rate=1e-2
# Less than a minute, and what more context in view is worth to it.
spread45          $spread train.minutes=0.75 model.width=512 model.heads=8 eval:--min-context=0,3072,6144,9216 sample:--length=2000
spread45two       $spread train.minutes=0.75 model.width=512 model.heads=8 train.seed=2
# Weight decay and dropout where the text is short.
part_low_decay    $spread train.minutes=1.5 model.layers=6 model.width=512 model.heads=8 model.pattern=fixed:128,32 data.split=[27000000,38200000,1171882] train.weight_decay=0.025
part_base         $spread train.minutes=1.6 model.layers=6 model.width=512 model.heads=8 model.pattern=fixed:128,32 data.split=[27000000,38200000,1171882]
part_both         $spread train.minutes=1.6 model.layers=6 model.width=512 model.heads=8 model.pattern=fixed:128,32 data.split=[27000000,38200000,1171882] train.weight_decay=0.3 train.dropout=0.05
# Thirty layers of width 512, as the paper has them, with the fast recipe of that time, and 12 wide ones.
ten-minutes         minute.toml  train.minutes=8.4 train.warmup=150 model.context=12288 train.batch=2 train.weight_decay=0.1 "train.context_schedule=1024 until 0.1; 3072 until 0.7"
ten-minutes-dropout minute.toml  train.minutes=8.4 train.warmup=150 model.context=12288 train.batch=2 train.weight_decay=0.1 train.dropout=0.1 "train.context_schedule=1024 until 0.1; 3072 until 0.7"
wide_mixed        $fixed model.convolution=0 train.validate_every=1500 model.heads=12 model.width=768 train.minutes=6.07 train.learning_rate=3e-3
# One ingredient changed at a time, one minute each.
minute-base       minute.toml
minute-linear     minute.toml  train.decay=linear
minute-wd1        minute.toml  train.weight_decay=0.1
minute-n1024      minute.toml  model.context=1024 train.batch=24
minute-mu04       minute.toml  train.muon_rate=0.04
minute-a1e2       minute.toml  train.learning_rate=1e-2
minute-noqk       minute.toml  model.qk_norm=false
minute-adam-1.5e-3 minute.toml train.optimizer=adam train.learning_rate=1.5e-3
minute-adam-6e-4  minute.toml  train.optimizer=adam train.learning_rate=6e-4 train.beta2=0.999
minute-adam-6e-4-not-normalised minute.toml train.optimizer=adam train.learning_rate=6e-4 train.beta2=0.999 model.qk_norm=false
RUNS
