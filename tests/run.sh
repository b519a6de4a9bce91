#!/usr/bin/env bash
# Installs what the tests need, builds, and passes all tests; nothing else has to be done before.
#
#   tests/run.sh            everything that CI runs
#   tests/run.sh quick      one build, without sanitizers and static analysis
#
# Build trees: build/test (gcc), build/clang (only configured, for clang-tidy), build/sanitize, build/thread (clang).
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-all}
jobs=$(nproc)

step() { printf '\n== %s (at %d s)\n' "$*" "$SECONDS"; }

configure() { # DIRECTORY [CMAKE OPTION...]
	local dir=$1
	shift
	cmake -S . -B "$dir" -G Ninja -DDEVELOPER=ON "$@" >"$dir.log" 2>&1 || {
		cat "$dir.log"
		return 1
	}
}

build() { # DIRECTORY [CMAKE OPTION...]
	configure "$@"
	ninja -C "$1" --quiet
}

run_tests() { # DIRECTORY [CTEST OPTION...]
	local dir=$1
	shift
	ctest --test-dir "$dir" -j "$jobs" --output-on-failure --no-tests=error "$@"
}

step packages
examples/install-packages.sh test
mkdir -p build

step "build with gcc"
build build/test -DCMAKE_C_COMPILER=gcc
if [ "$mode" = all ]; then
	step "format"
	git ls-files '*.c' '*.h' | xargs clang-format --dry-run -Werror
	step "clang-tidy"
	configure build/clang -DCMAKE_C_COMPILER=clang
	ninja -C build/clang --quiet generated/onnx.pb-c.h
	# one file each: from the second on, LLVM 14 takes every va_list for uninitialised
	git ls-files 'engine/*.c' 'sched/*.c' 'fs/*.c' 'examples/*.c' |
		xargs -P "$jobs" -n 1 clang-tidy --quiet -p build/clang 2>/dev/null
	step "build with address and undefined sanitizers"
	build build/sanitize -DCMAKE_C_COMPILER=gcc -DSANITIZE=address,undefined -DCMAKE_BUILD_TYPE=Debug \
		-DCMAKE_C_FLAGS=-O1
	step "tests under the sanitizers"
	# Libraries keep tables until exit (OpenMP, GLPK, RocksDB); only what nobody can reach any more is a leak.
	# Without AVX-512 bf16 is only converted: the tests below see whether rightly.
	ASAN_OPTIONS=detect_leaks=1 run_tests build/sanitize -E '^conform-bf16-avx2$'
	step "build with clang and the thread sanitizer"
	# all of it, though not all is run: this is the build with clang, too
	build build/thread -DCMAKE_C_COMPILER=clang -DSANITIZE=thread -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS=-O1
	step "the scheduler's tests under the thread sanitizer"
	# oneDNN and OpenMP are not built with it: what their threads do among themselves looks like races.
	# Left out are long ones on the fake clock: they have one thread.
	TSAN_OPTIONS=ignore_noninstrumented_modules=1 run_tests build/thread -L sched \
		-E '^sched-(admit|dispatch|joint|noise|partition|plan|shed|simulate|spill|weights|workers)$|-spilled$'
	step "the volume's and the mount's under the thread sanitizer"
	# volume_bulk, volume_content and volume_share crash in a child on purpose
	TSAN_OPTIONS="suppressions=$PWD/tests/support/tsan.supp die_after_fork=0" run_tests build/thread \
		-R '^(unit-volume_(bulk|content|fsck|model|names|share|xattr)|e2e-(anew|exercise_|events|users|limits|watchers))'
fi
step "tests"
run_tests build/test
step "done"
