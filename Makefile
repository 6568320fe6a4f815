# longstride: `make help` lists what can be done here.
.DEFAULT_GOAL := build
# One target at a time: they share build/ and the package manager, and Ninja uses all cores anyway.
.NOTPARALLEL:
.PHONY: build demo test test-unit test-gpu test-sanitize test-threads coverage memcheck crash-test fault-test power-test soak fuzz check format selftest bench \
  results install setup clean help program configure configure-program configure-sanitize

BINARY := build/longstride
PREFIX ?= /usr/local
# make CUDA=OFF builds for the CPU only. Not given, the choice of the last time stands (build/CMakeCache.txt), at first ON.
CUDA ?=
CMAKE_CHOICES = $(if $(CUDA),-DLONGSTRIDE_CUDA=$(CUDA))

# $(call configured,PRESET,CHOICES,GROUPS) installs what is missing and writes the build files of a preset.
configured = tools/setup $(3) && { cmake --preset $(1) $(2) >build-$(1).log 2>&1 || \
  { cat build-$(1).log; tools/setup --say $(3); exit 1; }; }

build: configure  ## build everything (Release) into build/
	@tools/say-build-time
	@cmake --build --preset release

program: configure-program  ## build the program alone
	@tools/say-build-time longstride
	@cmake --build --preset release --target longstride

demo: program  ## train a small model on English text for about two minutes, and let it write
	@tools/setup demo
	@tools/demo

test: check build test-unit test-sanitize  ## all checks and tests: by each instruction set of the CPU, and under sanitizers

# Tests at a time; most have threads of their own. Those of a GPU come one after the other: some need it to themselves.
JOBS ?= $(shell n=$$(nproc); echo $$((n < 4 ? n : 4)))
test-unit: build
	@reason=$$(tools/why-no-gpu) || exit 1; \
	ctest --preset release -j$(JOBS) -LE gpu || exit 1; \
	if [ -z "$$reason" ]; then ctest --preset release -L gpu; else \
	  echo "GPU tests skipped: $$reason (make test-gpu runs them)"; fi

test-gpu: build  ## the tests of what runs on a GPU; fails where there is none
	@reason=$$(tools/why-no-gpu) || exit 1; \
	if [ -n "$$reason" ]; then echo "make test-gpu needs a GPU: $$reason" >&2; exit 1; fi
	@ctest --preset release -L gpu

test-sanitize: configure-sanitize
	@cmake --build --preset sanitize
	@ctest --preset sanitize -j$(JOBS) -LE 'slow|instructions'

test-threads:  ## what has threads, under ThreadSanitizer
	@$(call configured,tsan,,build test)
	@cmake --build --preset tsan
	@ctest --preset tsan

FILES ?= 15
COVERED ?= -LE 'slow|instructions|gpu'
coverage:  ## which lines and branches the unit tests reach, by folder, and the FILES=15 files with the most that they do not
	@$(call configured,coverage,,build test)
	@cmake --build --preset coverage
	@find build-coverage -name '*.gcda' -delete
	@ctest --preset coverage $(COVERED) || echo "coverage: not every test passed; the numbers are those of what ran"
	@tools/coverage build-coverage $(FILES)

KILLS ?= 1000
crash-test: build  ## kill training, sampling and compressing 1,000 times (KILLS=N), and see that nothing is lost
	@build/crash_test $(KILLS)

fault-test: build  ## let every operation on files fail by every error that the system has for it, one by one
	@LONGSTRIDE_EVERY_FAULT=1 build/test_faults

LOSSES ?= 1000
power-test: build  ## take the power from the same 1,000 times (LOSSES=N): what was not brought to the disk is gone
	@build/power_test $(LOSSES)

HOURS ?= 6
REQUESTS ?= 100000
SEED ?= 1
soak: build  ## train for 6 hours (HOURS=N), draw 100,000 samples (REQUESTS=N), and see that nothing grows, slows down or differs
	@build/soak_test $(HOURS) $(REQUESTS) build/soak.json $(SEED)

SECONDS ?= 60
RUNS ?=
fuzz:  ## look for inputs that break a reader: SECONDS=60 for each kind of file, or RUNS=N; needs clang
	@$(call configured,fuzz,,build test fuzz)
	@cmake --build --preset fuzz --target fuzz
	@SECONDS_EACH=$(SECONDS) RUNS=$(RUNS) tests/fuzz/run $(TARGETS)

memcheck: program  ## a tiny run from start to end under valgrind
	@tools/setup memcheck
	@tests/reliability/memcheck $(BINARY)

check:  ## formatting, the direction of includes, and docs against what they speak of
	@tools/setup check
	@tools/check-format
	@tools/check-includes
	@tools/check-docs
	@tools/results --check

format:  ## format all sources, with clang-format 14 only
	@tools/setup check
	@tools/check-format --write

configure:
	@$(call configured,release,-DLONGSTRIDE_TESTS=ON -DLONGSTRIDE_BENCH=ON $(CMAKE_CHOICES),build test)

# The program alone needs no package of the tests.
configure-program:
	@$(call configured,release,-DLONGSTRIDE_TESTS=OFF -DLONGSTRIDE_BENCH=OFF $(CMAKE_CHOICES),build)

configure-sanitize:
	@$(call configured,sanitize,,build test)

selftest: program  ## every op and pattern against the fp64 reference on this machine
	@$(BINARY) selftest

bench: build  ## the benchmarks; see bench/README.md
	@for b in build/bench_*; do [ -x $$b ] && $$b; done

results:  ## docs/results.md and its curves anew, from the pages and logs in experiments/
	@tools/setup results
	@tools/results

install: configure-program  ## install program, library, headers, manual and completions: make install PREFIX=$HOME/.local (else /usr/local)
	@tools/say-build-time longstride
	@cmake --build --preset release --target longstride longstride_cpp longstride_shell_files
	@cmake --install build --prefix "$(PREFIX)"

setup:  ## install the distribution packages that are missing (packages.txt)
	@tools/setup build test check demo

clean:  ## remove what was built
	@rm -rf build build-sanitize build-tsan build-coverage build-fuzz build-arm build-*.log

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | \
	  while IFS='	' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done
	@printf '\n  %s\n  %s\n' 'make CUDA=OFF [...] leaves the CUDA backend out, and build/ stays so until make CUDA=ON; compiling it takes' \
	  'much the longest. It is built where nvcc is found: without a GPU here, leave it out.'
