#!/usr/bin/env bash
# 2,000 PNGs in one batch with cp, deadlines from far too tight to ample: planned and real effective accuracy, and
# whether any answer that came late says it was in time (what inotify saw is held against the deadline).
source "$(dirname "$0")/lib.sh"
n=${N:-2000}

bench_mount ${OPTIONS:+-o "$OPTIONS"}
bench_model
bench_endpoint app '{"model":"fashion","ahead":false}'
bench_png "$n"
cat "$ml/infer/app/slices.csv"
app=$ml/infer/app
# Deadlines as shares of what the fastest and the slowest sub-model need for all.
read -r fast slow < <(awk -F, -v n="$n" '
	NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
	$column["loaded"] == "no" { next }
	{ t = $column["ms"] * n / 32; if (!min || t < min) min = t; if (t > max) max = t }
	END { printf "%d %d\n", min, max }' "$app/slices.csv")
echo "deadline_ms,planned_p_eff,real_p_eff,ratio,ok,late,dropped,failed,late_but_ok,last_visible_ms"
i=0
for ms in $((fast / 4)) $((fast / 2)) "$fast" $((fast * 3 / 2)) $((fast * 2)) $(((fast + slow) / 2)) \
	"$slow" $((slow * 3 / 2)) $((slow * 3)); do
	b=batch$((i += 1))
	mkdir "$app/in/$b"
	cp "$work"/png/*.png "$app/in/$b/"
	mkdir -p "$app/out/$b"
	"$BUILD/tools/watch" "$app/out/$b" >"$work/seen" &
	watcher=$!
	while ! grep -q ready "$work/seen"; do sleep 0.01; done
	setfattr -n user.deadline -v "${ms}ms" "$app/in/$b"
	"$inferfs" wait "$app/out/$b/task.json" --timeout 5m
	sleep 0.3
	kill $watcher
	wait $watcher 2>/dev/null || true
	python3 - "$app/out/$b" "$work/seen" "$ms" "$app/schedule.csv" <<'P'
import csv, json, os, sys
out, seen, ms, schedule = sys.argv[1:]
start, ms = json.load(open(out + "/task.json"))["submitted"], float(ms)
visible = {}
for line in open(seen):
    part = line.split(" ", 2)
    if len(part) == 3 and part[1] == "MOVED_TO":
        visible[os.path.basename(part[2].strip())] = (float(part[0]) - start) * 1e3
rows = list(csv.DictReader(open(out + "/results.csv")))
status = {k: sum(r["status"] == k for r in rows) for k in ("ok", "late", "dropped", "failed")}
wrong = sum(r["status"] == "ok" and visible[os.path.basename(r["file"]) + ".json"] > ms for r in rows)
last = list(csv.DictReader(open(schedule)))[-1]
planned, real = float(last["planned_p_eff"]), float(last["real_p_eff"])
print("%g,%.2f,%.2f,%.3f,%d,%d,%d,%d,%d,%.0f" % (ms, planned, real, real / planned if planned else 1,
      status["ok"], status["late"], status["dropped"], status["failed"], wrong,
      max((v for k, v in visible.items() if k.endswith("png.json")), default=0)))
P
done
