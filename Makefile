# longstride: `make help` lists what can be done here.
.DEFAULT_GOAL := build
.PHONY: build configure demo test test-unit test-gpu test-sanitize check format selftest bench setup clean help

BINARY := build/longstride

build: configure  ## build everything (Release) into build/
	@cmake --build --preset release

demo: configure  ## train a small model on English text for about two minutes, and let it write
	@cmake --build --preset release --target longstride
	@tools/demo

test: check build test-unit test-sanitize  ## all checks and tests, the unit tests once more under sanitizers

test-unit: build
	@reason=$$(tools/why-no-gpu) || exit 1; \
	if [ -z "$$reason" ]; then ctest --preset release; else \
	  ctest --preset release -LE gpu && echo "GPU tests skipped: $$reason (make test-gpu runs them)"; fi

test-gpu: build  ## the tests of what runs on a GPU; fails where there is none
	@reason=$$(tools/why-no-gpu) || exit 1; \
	if [ -n "$$reason" ]; then echo "make test-gpu needs a GPU: $$reason" >&2; exit 1; fi
	@ctest --preset release -L gpu

test-sanitize: setup
	@cmake --preset sanitize >build-sanitize.log 2>&1 || { cat build-sanitize.log; exit 1; }
	@cmake --build --preset sanitize
	@ctest --preset sanitize -LE slow

check: setup  ## formatting, and the direction of includes
	@tools/check-format
	@tools/check-includes

format: setup  ## format all sources
	@git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs clang-format -i

configure: setup
	@cmake --preset release >build-release.log 2>&1 || { cat build-release.log; exit 1; }

selftest: build  ## every op and pattern against the fp64 reference on this machine
	@$(BINARY) selftest

bench: build  ## the benchmarks; see bench/README.md
	@for b in build/bench_*; do [ -x $$b ] && $$b; done

setup:  ## install the distribution packages that are missing (packages.txt)
	@tools/setup

clean:  ## remove what was built
	@rm -rf build build-sanitize build-*.log

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | \
	  while IFS='	' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done
