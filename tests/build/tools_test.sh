#!/usr/bin/env bash
# tools/ on machines that lack something: git, clang-format 14, dpkg, root. usage: tools_test.sh SCRATCH_FOLDER
set -euo pipefail
tree=$(cd "$(dirname "$0")/../.." && pwd)
scratch="$1/a folder"
rm -rf "$scratch"
mkdir -p "$scratch/tree" "$scratch/bin"
cp -r "$tree"/{tools,packages.txt,.clang-format,README.md,longstride,cli,tests,configs,bench,docs} "$scratch/tree"
cd "$scratch/tree"

failures=0
fail() { echo "FAILED: $1"; failures=$((failures + 1)); }
# The programs found are those of `bin`, then the system's but for those named in the second argument.
hide() {
  rm -rf "$scratch/path"
  mkdir "$scratch/path"
  for folder in /usr/bin /bin; do ln -s $folder/* "$scratch/path/" 2>/dev/null || true; done
  for name in "$@"; do rm -f "$scratch/path/$name"; done
}
stub() { printf '#!/bin/sh\n%s\n' "$2" >"$scratch/bin/$1"; chmod +x "$scratch/bin/$1"; }
limited() { PATH="$scratch/bin:$scratch/path" "$@" 2>&1; }
expect() {  # expect NAME STATUS TEXT COMMAND...
  local name=$1 status=$2 text=$3 output seen=0
  shift 3
  output=$(limited "$@") || seen=$?
  [ "$seen" = "$status" ] || fail "$name: exit status $seen, not $status: $output"
  [[ "$output" == *"$text"* ]] || fail "$name: no '$text' in: $output"
}

# No git at all, and a git that refuses: the sources are found all the same, and checked.
printf '#include <vector>\nint  f( ) { return std::max(1, 2); }\n' >longstride/base/wrong.cpp
mkdir -p build/x .hidden && touch build/CMakeCache.txt build/x/built.cpp .hidden/h.cpp
for git in 'exit 127' 'echo "fatal: detected dubious ownership" >&2; exit 128' 'exit 0'; do
  hide
  stub git "$git"
  stub clang-format-14 'case "$*" in *--version*) echo "version 14.0.6";; *wrong.cpp*) echo wrong.cpp differs; exit 1;; esac'
  expect "headers, git: $git" 1 'wrong.cpp:2: std::max needs #include <algorithm>' tools/check-includes
  expect "format, git: $git" 1 'wrong.cpp differs' tools/check-format
  output=$(limited tools/list-sources cpp)
  grep -qE '^(build|\.hidden)/' <<<"$output" && fail "built or hidden sources are listed"
done
rm longstride/base/wrong.cpp
expect "all is well" 0 'check-includes: ok, ' tools/check-includes
# A page that names a file that is not there.
printf 'See `longstride/base/none.h`.\n' >docs/wrong.md
expect "docs" 1 'docs/wrong.md:1: there is no longstride/base/none.h' tools/check-docs
rm docs/wrong.md
mv longstride hidden.away && mkdir longstride
expect "no source" 1 'no source' tools/list-sources nothing
expect "no library" 1 'no file under longstride/' tools/check-includes
rmdir longstride && mv hidden.away longstride

# Another clang-format, and none.
hide clang-format-14 clang-format
rm "$scratch/bin/clang-format-14"
expect "no clang-format" 0 'NOT CHECKED: no clang-format' tools/check-format
expect "no clang-format to write" 1 'nothing was changed' tools/check-format --write
stub clang-format 'case "$*" in *--version*) echo "Debian clang-format version 19.1.7";; *) echo formats; exit 3;; esac'
expect "another clang-format" 0 'NOT CHECKED: this is clang-format 19' tools/check-format
expect "another clang-format to write" 1 'nothing was changed' tools/check-format --write

# Packages: not Debian; nothing missing; missing with and without root.
hide dpkg-query sudo
expect "not Debian" 0 'not a Debian or Ubuntu system' tools/setup build
stub dpkg-query 'printf installed'
expect "nothing missing" 0 '' tools/setup build test check demo
[ -z "$(limited tools/setup build)" ] || fail "setup speaks though nothing is missing"
expect "no such group" 2 'no group nonsense' tools/setup nonsense
stub dpkg-query 'case "$*" in *fortunes*|*ccache*) exit 1;; *) printf installed;; esac'
stub apt-get 'echo "$*" >>"$APT_LOG"'
export APT_LOG="$scratch/apt.log"
touch "$APT_LOG"
stub id 'echo 1000'
expect "no root" 0 'apt-get install --no-install-recommends fortunes' tools/setup build demo
expect "no root, the plain way" 0 'cmake --preset release && cmake --build --preset release' tools/setup build demo
[ -z "$(limited tools/setup build)" ] || fail "an optional package is asked for"
stub sudo 'exit 1'
expect "sudo that wants a password of nobody" 0 'apt-get install --no-install-recommends fortunes' tools/setup demo </dev/null
[ ! -s "$APT_LOG" ] || fail "apt-get was run without root: $(cat "$APT_LOG")"
stub id 'echo 0'
expect "saying only" 0 'apt-get install --no-install-recommends fortunes' tools/setup --say demo
[ ! -s "$APT_LOG" ] || fail "apt-get was run though only words were wanted"
expect "root" 0 'installing ccache fortunes' tools/setup build demo
grep -q -- 'install -y --no-install-recommends ccache fortunes$' "$APT_LOG" || fail "not installed: $(cat "$APT_LOG")"
stub apt-get 'exit 100'
expect "root without a network" 0 'apt-get install failed' tools/setup demo

[ "$failures" -eq 0 ] && echo "tools: ok"
exit "$failures"
