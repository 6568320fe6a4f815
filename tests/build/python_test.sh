#!/usr/bin/env bash
# The Python module against the installed library, and its tests; skipped where LONGSTRIDE_PYTHON (else python3) lacks nanobind,
# numpy or pytest. What is for PyTorch is skipped where that is missing. usage: python_test.sh SCRATCH_FOLDER BUILD_FOLDER
set -euo pipefail
tree=$(cd "$(dirname "$0")/../.." && pwd)
python=${LONGSTRIDE_PYTHON:-python3}
missing=$("$python" -c 'import nanobind, numpy, pytest' 2>&1 | tail -1) || missing=${missing:-no $python}
[ -z "$missing" ] || { echo "python: not tested: $missing"; exit 77; }
scratch="$1/a folder"
rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch"
quietly() { "$@" >log 2>&1 || { cat log; echo "python: $* failed"; exit 1; }; }
quietly cmake --install "$2" --prefix "$scratch/prefix"
quietly cmake -G Ninja -S "$tree/python" -B build -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$scratch/prefix" \
  -DPython_EXECUTABLE="$(command -v "$python")"
quietly ninja -C build
quietly cmake --install build --prefix "$scratch"
cp "$tree"/python/longstride/*.py longstride/
PYTHONPATH=$scratch quietly "$python" -m pytest -q -p no:cacheprovider "$tree/python/tests"
tail -1 log
echo "python: ok"
