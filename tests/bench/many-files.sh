#!/usr/bin/env bash
# COUNT (1,000,000) empty files in one directory: create; kill -9 and mount again; list, stat each, remove, list again. Seconds, rates,
# and the daemon's RSS after each step.
#
#   BUILD=build/release tests/bench/many-files.sh [COUNT]
. "$(dirname "$0")/lib.sh"
count=${1:-1000000}
bench_mount
mkdir "$ml/datasets/d" "$ml/datasets/d/many"

step() { # NAME
	python3 - "$ml/datasets/d/many" "$count" "$1" <<'PY'
import os, sys, time
d, n, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def create():
    for i in range(n):
        os.close(os.open(f"{d}/file-{i}", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
def names(want=n):
    with os.scandir(d) as it:
        got = sum(1 for _ in it)
    assert got == want, (got, want)
def stats():
    with os.scandir(d) as it:
        got = sum(e.stat(follow_symlinks=False).st_size == 0 for e in it)
    assert got == n, got
def remove():
    for i in range(n):
        os.unlink(f"{d}/file-{i}")
fn, count = {"create": (create, n), "list": (names, n), "list and stat": (stats, n), "remove": (remove, n),
             "list when empty": (lambda: names(0), 1)}[what]
start = time.monotonic()
fn()
s = time.monotonic() - start
print(f"{what}: {s:.2f} s, {count / s:,.0f}/s", end="", flush=True)
PY
	echo ", RSS $(rss_mib "$daemon") MiB"
}

step create
kill -9 "$daemon"
wait "$daemon" 2>/dev/null || true
umount -l "$ml"
start=$(date +%s%N)
bench_mount
echo "mount after kill -9: $((($(date +%s%N) - start) / 1000000)) ms, RSS $(rss_mib "$daemon") MiB"
step list
step "list and stat"
step remove
step "list when empty"
