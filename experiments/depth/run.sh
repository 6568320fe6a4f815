#!/usr/bin/env bash
# 30 to 240 layers with as many weights, 1,000 steps each, by both initialisations, and the deepest and the shallowest by the paper's recipe.
exec "$(dirname "$0")/../run" "$0" <<'RUNS'
released-30       depth.toml
released-60       depth.toml  model.layers=60 model.width=192 model.heads=6 model.feed_forward=640
released-120      depth.toml  model.layers=120 model.width=128 model.heads=4 model.feed_forward=512
released-240      depth.toml  model.layers=240 model.width=96 model.heads=3 model.feed_forward=320
paper-30          depth.toml  model.init=paper
paper-60          depth.toml  model.init=paper model.layers=60 model.width=192 model.heads=6 model.feed_forward=640
paper-120         depth.toml  model.init=paper model.layers=120 model.width=128 model.heads=4 model.feed_forward=512
paper-240         depth.toml  model.init=paper model.layers=240 model.width=96 model.heads=3 model.feed_forward=320
adam-released-30  adam.toml
adam-released-240 adam.toml   model.layers=240 model.width=96 model.heads=3 model.feed_forward=320
adam-paper-30     adam.toml   model.init=paper
adam-paper-240    adam.toml   model.init=paper model.layers=240 model.width=96 model.heads=3 model.feed_forward=320
RUNS
