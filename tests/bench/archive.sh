#!/usr/bin/env bash
# 10,000 images as one batch: by `cp -r` of a directory, and by `cp` of one archive of it. From the start of cp
#   there:	the last instance says user.state queued, running or ok: all are in the tree and submitted (for cp -r a deadline of an hour
#		is set when it returns, else the settle time would count)
#   answered:	out/BATCH/task.json
# in turn, ROUNDS of each, images/s of the median and how much more than by cp -r. Null backend; with MODEL=DIRECTORY also that model.
#
#   [MODEL=DIRECTORY] [N=10000] [ROUNDS=5] BUILD=build/release tests/bench/archive.sh
[ "$(stat -f -c %T "${TMPDIR:-/tmp}")" = tmpfs ] || export TMPDIR=/dev/shm
source "$(dirname "$0")/lib.sh"
n=${N:-10000}
rounds=${ROUNDS:-5}

cat >"$work/measure.py" <<'P'
"""measure.py APP ROUNDS DIRECTORY ARCHIVE…: a line for each way."""
import os, shutil, statistics, subprocess, sys, time

app, rounds, ways = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
names = sorted(os.path.join(r, f) for r, _, fs in os.walk(ways[0]) for f in fs)
last = os.path.relpath(names[-1], ways[0])


def until(done):
    end = time.monotonic() + 300
    while not done():
        if time.monotonic() > end:
            sys.exit("not in 300 s")
        time.sleep(0.001)
    return time.monotonic()


def state(path):
    try:
        return os.getxattr(path, "user.state").decode()
    except OSError:
        return ""


def measure(way, name):
    batch = f"{app}/in/{name}"
    start = time.monotonic()
    if os.path.isdir(way):
        subprocess.run(["cp", "-r", way, batch], check=True)
        os.setxattr(batch, "user.deadline", b"60m")
    else:
        subprocess.run(["cp", way, f"{batch}{ending(way)}"], check=True)
    there = until(lambda: state(f"{batch}/{last}") in ("queued", "running", "ok") or failed(batch + ending(way))) - start
    answered = until(lambda: os.path.exists(f"{app}/out/{name}/task.json")) - start
    if not os.path.isdir(way):
        os.unlink(batch + ending(way))
    shutil.rmtree(batch)
    shutil.rmtree(f"{app}/out/{name}")
    time.sleep(1)  # the removed goes from the database
    return there, answered


def failed(archive):
    if state(archive) == "failed":
        sys.exit(f"{archive} failed")


def ending(way):
    base = os.path.basename(way)
    return "" if os.path.isdir(way) else base[base.index("."):]


times = {way: [] for way in ways}
for r in range(rounds):
    for way in ways:
        times[way].append(measure(way, f"b{r}{ways.index(way)}"))
there0, answered0 = (statistics.median(t) for t in zip(*times[ways[0]]))
for way in ways:
    there, answered = (statistics.median(t) for t in zip(*times[way]))
    print(f"  {ending(way) or 'cp -r':8} there {there:6.3f} s {len(names) / there:8.0f}/s {there0 / there:5.1f} x   "
          f"answered {answered:6.3f} s {len(names) / answered:8.0f}/s {answered0 / answered:5.1f} x", flush=True)
P

pack() { # DIRECTORY
	tar -C "$1" -cf "$1.tar" .
	tar -C "$1" -czf "$1.tar.gz" .
	(cd "$1" && zip -qr "$1.zip" .)
}
compare() { # TITLE APP DIRECTORY
	echo "$1, $n images, $(du -sb "$3" | awk '{ printf "%.0f MB", $1 / 1e6 }'):"
	python3 "$work/measure.py" "$ml/infer/$2" "$rounds" "$3" "$3.tar" "$3.tar.gz" "$3.zip"
}

bench_png "$n"
pack "$work/png"
mkdir "$work/large"
python3 - "$work/large" "$n" <<'P'
import os, random, sys
random.seed(1)
for i in range(int(sys.argv[2])):
    open("%s/%05d.png" % (sys.argv[1], i), "wb").write(random.randbytes(random.randint(1024, 20480)))
P
pack "$work/large"

bench_mount -o null_backend
mkdir -p "$ml/models/null/1"
echo '{"submodels":[{"slice":1,"accuracy":0.9,"ms":1,"one_ms":1}],"classes":10}' >"$ml/models/null/1/model.json"
: >"$ml/models/null/1/weights.safetensors"
bench_endpoint null '{"model":"null","version":1}'
compare "null backend, Fashion-MNIST as PNG" null "$work/png"
compare "null backend, 1 to 20 KB each" null "$work/large"
if [ -n "${MODEL:-}" ]; then
	"$inferfs" umount "$ml"
	wait "$daemon" || true
	bench_mount
	bench_model
	bench_endpoint real '{"model":"fashion"}'
	compare "the model, Fashion-MNIST as PNG" real "$work/png"
fi
