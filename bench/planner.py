#!/usr/bin/env python3
"""planner.py LONGSTRIDE DATA [--json FILE] [--seconds S] [--only NAME,..]: what `inspect --time` predicts of six configs, beside what training then takes.

Each config's steps are measured anew (`--measure`), then it trains for about S seconds without validation. A step's time is the mean of the second
half of the run's records, and memory is what the program says at its end, beside its plan. Run it on a quiet machine. DATA is the folder of the
configs' `data/` (experiments/README.md)."""
import argparse
import json
import os
import pathlib
import subprocess
import tempfile

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs"
# name: config, fields. Between them all kinds of data and patterns, one to hundreds of MiB, kept and recomputed activations.
CPU = {
    "fortunes": ("fortunes.toml", ["data.path=data/wiki66.txt.xz"]),
    "wiki": ("small/wiki.toml", []),
    "cifar10": ("small/cifar10.toml", ["data.path=data/cifar10-data_batch_1-first4000.bin.xz"]),
    "music": ("small/music.toml", []),
    "deep, recomputed": ("small/wiki.toml", ["model.layers=12", "model.width=192", "model.context=2048", "model.pattern=fixed:64,16", "train.activations=recompute"]),
    "wide, dense": ("small/wiki.toml", ["model.width=512", "model.heads=8", "model.context=512", "model.pattern=dense", "train.batch=8"]),
}
GPU = {
    "enwik8": ("enwik8-ten-minutes.toml", ["data.path=data/wiki66.txt.xz", "train.context_schedule="]),
    "enwik8, recomputed": ("enwik8-ten-minutes.toml", ["data.path=data/wiki66.txt.xz", "train.context_schedule=", "train.batch=4", "train.activations=recompute"]),
    "cifar10": ("cifar10.toml", ["data.path=data/cifar10-data_batch_1-first4000.bin.xz", "data.split=[3600,200,200]"]),
    "music-65k": ("music-65k.toml", ["data.path=data/music12k-wav.tar.xz"]),
    "small wiki": ("small/wiki.toml", ["train.batch=32"]),
    "dense": ("enwik8-ten-minutes.toml", ["data.path=data/wiki66.txt.xz", "train.context_schedule=", "model.pattern=dense", "model.context=4096"]),
}


def fields(values):
    return [part for value in values for part in ("--set", value)]


def call(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout, done.stderr


def measure(program, config, values, device, seconds, folder):
    common = [str(CONFIGS / config), "--device", device, *fields(values)]
    out, _ = call([program, "inspect", *common, "--time", "--measure", "--json"], folder)
    planned = json.loads(out)
    predicted = planned["time"]["stages"][0]["seconds"]
    steps = max(6, round(seconds / predicted))
    run = tempfile.mkdtemp(dir=folder)
    out, _ = call([program, "train", "--json", *common, *fields([f"train.steps={steps}", "train.minutes=0", "train.epochs=0", f"train.log_every={max(1, steps // 20)}",
                                                        "train.validate_every=1000000000"]), "--run", run], folder)
    records = [json.loads(line) for line in (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines()]
    records = [r for r in records if "train/bits" in r]
    first, last = records[len(records) // 2 - 1], records[-1]
    took = (last["time"] - first["time"]) / (last["step"] - first["step"])
    said = json.loads(out)
    planned, peak = said["planned_memory"], said["peak_memory"]
    return {"steps": steps, "predicted_seconds": predicted, "seconds": took, "time_ratio": predicted / took,
            "planned_bytes": planned, "bytes": peak, "memory_ratio": planned / peak}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("longstride")
    parser.add_argument("data")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--only", default="")
    parser.add_argument("--json")
    a = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(os.path.abspath(a.data), pathlib.Path(folder) / "data")
        for name, (config, values) in (CPU if a.device == "cpu" else GPU).items():
            if a.only and name not in a.only.split(","):
                continue
            rows[name] = row = measure(os.path.abspath(a.longstride), config, values, a.device, a.seconds, folder)
            print(f"{name:18} step {row['seconds'] * 1e3:9.2f} ms, predicted {row['predicted_seconds'] * 1e3:9.2f} ({row['time_ratio']:.3f})"
                  f"   memory {row['bytes'] / 2**20:9.1f} MiB, planned {row['planned_bytes'] / 2**20:9.1f} ({row['memory_ratio']:.3f})", flush=True)
    if a.json:
        pathlib.Path(a.json).write_text(json.dumps({"device": a.device, "configs": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
