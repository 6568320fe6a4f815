#!/usr/bin/env bash
# What tools/demo says at its end, with a stand-in for the program. usage: demo_test.sh SCRATCH_FOLDER
set -euo pipefail
tree=$(cd "$(dirname "$0")/../.." && pwd)
scratch="$1/a folder"
rm -rf "$scratch"
mkdir -p "$scratch/tree/build" "$scratch/text" "$scratch/few"
cp -r "$tree"/{tools,configs} "$scratch/tree"
cd "$scratch/tree"
# Numbers of random digits: nothing beats xz at them by much.
awk 'BEGIN { srand(1); for (i = 0; i < 40000; ++i) print int(1e9 * rand()) }' >"$scratch/text/some words"
echo words >"$scratch/few/text"
cat >build/longstride <<'EOF'
#!/bin/sh
case "$1" in
  train) mkdir -p "$4"; echo "train $*"; printf '{"step":%s,"time":1.5}\n{"step":%s,"validation/bits":3}\n' 10 "$STEPS" >"$4/metrics.jsonl" ;;
  eval) printf '{\n  "bits_per_byte": %s,\n  "best": 1\n}\n' "$BITS" ;;
  sample) cat ;;
esac
EOF
chmod +x build/longstride

failures=0
expect() {  # expect NAME STATUS TEXT: of the demo's output
  local output seen=0
  output=$(tools/demo 2>&1) || seen=$?
  [ "$seen" = "$2" ] || { echo "FAILED: $1: exit status $seen: $output"; failures=$((failures + 1)); }
  [[ "$output" == *"$3"* ]] || { echo "FAILED: $1: no '$3' in: $output"; failures=$((failures + 1)); }
}
export FORTUNES="$scratch/text" STEPS=100 BITS=9
expect "xz won" 0 'xz won: 100 steps in '
expect "another text" 0 'How many steps this text takes was not measured'
MINUTES=7 expect "minutes" 0 '--set train.minutes=7'
BITS=0.5 expect "xz lost" 0 'longstride 0.500, xz -9e '
[[ "$(BITS=0.5 tools/demo 2>&1)" != *'xz won'* ]] || { echo "FAILED: xz won though it lost"; failures=$((failures + 1)); }
FORTUNES="$scratch/text/some words" expect "a file" 0 'Go on with'
FORTUNES="$scratch/few" expect "too little" 1 'has too little text, 6 bytes'
FORTUNES="$scratch/none" expect "no text" 1 'which is not there'

# As long as the text that was measured.
head -c 2576674 /dev/zero >"$scratch/text/some words"
expect "the minutes that would do" 0 '700 steps beat it, some 1 minutes at this speed:  MINUTES=1 make demo'
[ "$failures" -eq 0 ] && echo "demo: ok"
exit "$failures"
