#!/usr/bin/env bash
# Loose files that arrive at random: first what the mount takes from cp to the last answer (N files at once), then SECONDS_ of Poisson
# arrivals at each of LOADS times that rate, each file with the deadline D. Prints CSV: load, files a second asked and written, how
# many, percent answered in time, how many late, dropped, failed, accuracy by true labels, and of the time from close() to the answer
# (its file's mtime) median and 99 %.
#
#	MODEL=DIRECTORY [N=10000] [SECONDS_=30] [LOADS="0.25 0.5 0.75 1"] [D=100ms] [SETTLE=50ms] tests/bench/poisson.sh
source "$(dirname "$0")/lib.sh"
n=${N:-10000} d=${D:-100ms}

bench_mount ${OPTIONS:+-o "$OPTIONS"}
bench_model
bench_endpoint app '{"model":"fashion","deadline":"10m","settle":"'"${SETTLE:-50ms}"'"}'
bench_png "$n"
sync
python3 - "$work/png" "$ml/infer" "$d" "${SECONDS_:-30}" "${LOADS:-0.25 0.5 0.75 1}" "$ml/models/fashion/1/labels.txt" "${SETTLE:-50ms}" <<'P'
import json, os, random, sys, time
png, infer, deadline, seconds, loads, labels, settle = sys.argv[1:]
seconds, names = float(seconds), open(labels).read().splitlines()
files = [(n, open(f"{png}/{n}", "rb").read()) for n in sorted(os.listdir(png))]

def write(app, name, data):
    fd = os.open(f"{app}/in/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(fd, data)
    os.close(fd)

def answers(app, count, limit):
    end = time.monotonic() + limit
    time.sleep(1) # listing tens of thousands of files delays what is published meanwhile
    while True:
        with os.scandir(app + "/out") as entries:
            there = [e.name for e in entries if e.name.endswith(".png.json")]
        if len(there) >= count:
            return there
        if time.monotonic() > end:
            sys.exit(f"{count - len(there)} of {count} are not answered")
        time.sleep(0.5)

def endpoint(name, spec):
    os.mkdir(f"{infer}/{name}")
    with open(f"{infer}/{name}/spec.json", "w") as f:
        json.dump(spec, f)
    while not os.path.exists(f"{infer}/{name}/slices.csv"):
        time.sleep(0.1)
    return f"{infer}/{name}"

app = infer + "/app"
start = time.time()
for n, data in files:
    write(app, n, data)
last = max(os.stat(f"{app}/out/{a}").st_mtime for a in answers(app, len(files), 300))
capacity = len(files) / (last - start)
print(f"# capacity: {capacity:.0f} files a second, from the first open() to the last answer")
print("load,asked_per_s,written_per_s,files,in_time_percent,late,dropped,failed,right_percent,median_ms,p99_ms")
rng = random.Random(1)
for i, load in enumerate(loads.split()):
    app = endpoint(f"load{i}", {"model": "fashion", "deadline": deadline, "settle": settle})
    time.sleep(1)
    rate, closed, start = float(load) * capacity, {}, time.monotonic()
    at = start
    while at < start + seconds:
        at += rng.expovariate(rate)
        wait = at - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        n, data = files[len(closed) % len(files)]
        n = f"{len(closed):07d}-{n}"
        write(app, n, data)
        closed[n] = time.time()
    took = time.monotonic() - start
    count, right, ms = dict(ok=0, late=0, dropped=0, failed=0), 0, []
    for a in answers(app, len(closed), 60):
        with open(f"{app}/out/{a}") as f:
            j = json.load(f)
        count[j["status"]] += 1
        right += j["status"] == "ok" and j["label"] == names[int(a.split(".")[0].rsplit("-", 1)[1])]
        ms.append((os.stat(f"{app}/out/{a}").st_mtime - closed[a[:-5]]) * 1e3)
    ms.sort()
    print(f"{load},{rate:.0f},{len(closed) / took:.0f},{len(closed)},{100 * count['ok'] / len(closed):.3f},{count['late']},"
          f"{count['dropped']},{count['failed']},{100 * right / len(closed):.2f},{ms[len(ms) // 2]:.2f},{ms[len(ms) * 99 // 100]:.2f}",
          flush=True)
P
