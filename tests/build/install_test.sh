#!/usr/bin/env bash
# What is installed runs, its documents lead to each other, and manual and completions are there; a build in the source folder is refused.
# usage: install_test.sh SCRATCH_FOLDER BUILD_FOLDER
set -euo pipefail
tree=$(cd "$(dirname "$0")/../.." && pwd)
scratch="$1/a folder"
rm -rf "$scratch"
mkdir -p "$scratch"
fail() { echo "install: $1"; exit 1; }

cmake --install "$2" --prefix "$scratch/prefix" >"$scratch/log" || { cat "$scratch/log"; exit 1; }
"$scratch/prefix/bin/longstride" --version >/dev/null || fail "the program does not run"
for file in man/man1/longstride.1 bash-completion/completions/longstride zsh/site-functions/_longstride \
  fish/vendor_completions.d/longstride.fish; do
  grep -q longstride "$scratch/prefix/share/$file" || fail "share/$file is not installed, or empty"
done
documents=$(dirname "$(find "$scratch/prefix" -name LICENSE)")
for link in $(grep -oE '\]\([a-z][^):#]*' "$documents/README.md" | cut -c3-); do
  # What only a tree has to build from is not installed.
  [ "$link" = packages.txt ] || [ -e "$documents/$link" ] || fail "README.md leads to $link, which is not installed"
done

mkdir "$scratch/tree"
cp -r "$tree"/{CMakeLists.txt,cli,longstride} "$scratch/tree"
(cd "$scratch/tree" && cmake . >"$scratch/log" 2>&1) && fail "a build in the source folder is not refused"
grep -q 'folder of its own' "$scratch/log" || fail "refused without a word: $(cat "$scratch/log")"
echo "install: ok"
