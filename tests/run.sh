#!/usr/bin/env bash
# Installs what the tests need, builds, and passes all tests; nothing else has to be done before.
#
#   tests/run.sh            everything that CI runs
#   tests/run.sh quick      one build, without sanitizers and static analysis
#
# Build trees: build/test (gcc), build/clang, build/sanitize.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-all}

step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

build() { # DIRECTORY [CMAKE OPTION...]
	local dir=$1
	shift
	cmake -S . -B "$dir" -G Ninja -DDEVELOPER=ON "$@" >"$dir.log" 2>&1 || {
		cat "$dir.log"
		return 1
	}
	ninja -C "$dir" --quiet
}

step packages
examples/install-packages.sh test
mkdir -p build

step "build with gcc"
build build/test -DCMAKE_C_COMPILER=gcc
if [ "$mode" = all ]; then
	step "build with clang"
	build build/clang -DCMAKE_C_COMPILER=clang
	step "format"
	git ls-files '*.c' '*.h' | xargs clang-format --dry-run -Werror
	step "clang-tidy"
	git ls-files 'engine/*.c' 'sched/*.c' 'fs/*.c' 'examples/*.c' |
		xargs -P "$(nproc)" -n 4 clang-tidy --quiet -p build/clang 2>/dev/null
	step "build with address and undefined sanitizers"
	build build/sanitize -DCMAKE_C_COMPILER=gcc -DSANITIZE=address,undefined -DCMAKE_BUILD_TYPE=Debug \
		-DCMAKE_C_FLAGS=-O1
	step "tests under the sanitizers"
	# Libraries keep tables until exit (OpenMP, GLPK, RocksDB); only what nobody can reach any more is a leak.
	ASAN_OPTIONS=detect_leaks=1 ctest --test-dir build/sanitize --output-on-failure --no-tests=error \
		--timeout 600
fi
step "tests"
ctest --test-dir build/test --output-on-failure --no-tests=error
