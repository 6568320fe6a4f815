#!/usr/bin/env bash
# docs/results.md is what the pages and logs of experiments/ give, the same bytes each time, and stays as it is if a log is missing, cut, of a failed
# run, or does not bear out the text. usage: results_test.sh SCRATCH_FOLDER
set -euo pipefail
tree=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$1
rm -rf "$scratch"
mkdir -p "$scratch/tools" "$scratch/docs"
cp "$tree/tools/results" "$scratch/tools/"
cp -r "$tree/experiments" "$tree/configs" "$scratch/"
cp -r "$tree/docs/results.md" "$tree/docs/images" "$scratch/docs/"
cd "$scratch"
fail() { echo "results: $1"; exit 1; }

tools/results --check >out 2>&1 || fail "the page is not what the logs give: $(cat out)"
rm docs/results.md
tools/results >out 2>&1 || fail "$(cat out)"
cmp docs/results.md "$tree/docs/results.md" || fail "a second page differs"
tools/results >out 2>&1 && [ ! -s out ] || fail "nothing has changed, and it says: $(cat out)"

log=experiments/text/logs/spread600.jsonl
cp "$log" whole.jsonl
refused() {  # WHAT PART_OF_THE_LINE
  if tools/results >out 2>err; then fail "$1 is taken"; fi
  [ "$(wc -l <err)" = 1 ] || fail "$1: not one line: $(cat err)"
  grep -qF "$2" err || fail "$1: says: $(cat err)"
  cmp -s docs/results.md "$tree/docs/results.md" || fail "$1 changed the page"
  ! tools/results --check >out 2>err || fail "$1 passes the check"
  cp whole.jsonl "$log"
}
rm "$log"
refused "a missing log" "there is no $log; ONLY=spread600 experiments/text/run.sh makes it"
head -n -1 whole.jsonl >"$log"
refused "a log without its end" "$log is cut: its last line is not the end; ONLY=spread600"
head -c 3000 whole.jsonl >"$log"
refused "a log cut within a line" "$log is cut in line"
: >"$log"
refused "an empty log" "$log is cut"
{ head -n 5 whole.jsonl; echo '{"error": "out of memory"}'; } >"$log"
refused "a failed run" "$log is of a run that failed (out of memory)"
sed 's/"test": 1.04193/"test": 1.5/' whole.jsonl >"$log"
refused "a log against the text" "the text rests on spread600 test < ten test"

# Another number changes the page, and the check sees it; the picture is of other numbers, so it needs no matplotlib.
sed 's/"steps": 16105/"steps": 16106/' whole.jsonl >"$log"
! tools/results --check >out 2>err || fail "another number passes the check"
grep -q 'docs/results.md; make results' err || fail "the check says: $(cat err)"
tools/results >out 2>err || fail "$(cat err)"
grep -q '16,106' docs/results.md || fail "the new number is not on the page"
cp whole.jsonl "$log"

# A run that is asked for by a name that no experiment has, or that fails, is told.
said=$(echo 'a none.toml' | ONLY=b experiments/run experiments/text/run.sh 2>&1) && fail "a run that is not there is made"
grep -q 'there is no config none.toml' <<<"$said" || fail "experiments/run says: $said"
said=$(LONGSTRIDE=false DATA=. LOGS=logs RUNS=runs ONLY=ten,spread45 experiments/text/run.sh 2>&1) && fail "runs that fail pass"
[ "$(grep -c 'failed: no message' <<<"$said")" = 2 ] || fail "experiments/run says: $said"
tail -n 1 logs/ten.jsonl | grep -q '"error": "no message"' || fail "the log does not say that its run failed"
