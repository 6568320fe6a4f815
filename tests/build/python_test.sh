#!/usr/bin/env bash
# The Python package: a wheel against the installed library, its tests, and a source distribution. The tools are those of
# LONGSTRIDE_PYTHON (else python3) where it has them, and else come from pip's index into a fresh environment; skipped without
# either. Tests for PyTorch are skipped where that is missing. usage: python_test.sh SCRATCH_FOLDER BUILD_FOLDER
set -euo pipefail
tree=$(cd "$(dirname "$0")/../.." && pwd)
python=${LONGSTRIDE_PYTHON:-python3}
scratch="$1/a folder"
rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch"
export PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
quietly() { "$@" >log 2>&1 || { cat log; echo "python: $* failed"; exit 1; }; }
skip() { echo "python: not tested: $1"; exit 77; }

needed='import nanobind, numpy, pytest, scikit_build_core'
into=(--no-deps --target "$scratch/site")
if ! "$python" -c "$needed" >/dev/null 2>&1; then
  "$python" -m venv tools >log 2>&1 || skip "$python has no venv, or there is no $python (package python3-venv)"
  python=$scratch/tools/bin/python into=()
  "$python" -m pip install -q --retries 1 --timeout 20 "nanobind>=2.4" numpy pytest "scikit-build-core>=1.0" >log 2>&1 ||
    skip "pip installs no nanobind, numpy, pytest and scikit-build-core: $(tail -1 log)"
fi
"$python" -c 'import sysconfig, os, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
  skip "$python has no headers (package python3-dev)"

quietly cmake --install "$2" --prefix "$scratch/prefix"
quietly env CMAKE_PREFIX_PATH="$scratch/prefix" "$python" -m pip wheel -q --no-build-isolation --no-deps -w wheel "$tree/python"
quietly "$python" -m pip install -q "${into[@]}" wheel/*.whl
"$python" -m zipfile -l wheel/*.whl >names
for file in _longstride.pyi py.typed; do
  grep -q "longstride/$file" names || { cat names; echo "python: the wheel has no $file"; exit 1; }
done
PYTHONPATH=$scratch/site LONGSTRIDE_BINARY=$scratch/prefix/bin/longstride \
  quietly "$python" -m pytest -q -rs -p no:cacheprovider "$tree/python/tests"
tail -5 log

# It can be built where the tree is not: here it is configured, which looks for all that it is built of.
quietly "$python" -c "import os, sys; os.chdir(sys.argv[1]); from scikit_build_core import build; build.build_sdist(sys.argv[2])" \
  "$tree/python" "$scratch/source"
tar xzf source/*.tar.gz -C source
quietly env -u CMAKE_PREFIX_PATH cmake -G Ninja -S source/longstride-*/ -B configured -DLONGSTRIDE_CUDA=OFF -DPython_EXECUTABLE="$python"
grep -q '^longstride_SOURCE_DIR.*source/longstride-[^/]*/tree$' configured/CMakeCache.txt ||
  { echo "python: the source distribution is built of another tree"; exit 1; }
echo "python: ok"
