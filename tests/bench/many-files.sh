#!/usr/bin/env bash
# COUNT (1,000,000) empty files in one directory: create, list, stat each, remove, list again; seconds and rates.
#
#   BUILD=build/release tests/bench/many-files.sh [COUNT]
. "$(dirname "$0")/lib.sh"
bench_mount
mkdir "$ml/datasets/d" "$ml/datasets/d/many"
python3 - "$ml/datasets/d/many" "${1:-1000000}" <<'PY'
import os, sys, time
d, n = sys.argv[1], int(sys.argv[2])
def step(what, fn, count=n):
    start = time.monotonic()
    fn()
    s = time.monotonic() - start
    print(f"{what}: {s:.2f} s, {count / s:,.0f}/s", flush=True)
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
step("create", create)
step("list names", names)
step("list names and stat", stats)
step("remove", remove)
step("list when empty", lambda: names(0), 1)
PY
echo "daemon: $(rss_mib "$daemon") MiB"
