#!/usr/bin/env bash
# COUNT (1,000,000) instances through in/ and out/ of an endpoint that computes nothing, 2,000 a batch, each batch removed when it is
# answered: what the daemon holds (RSS, descriptors, state directory) and how long listing the emptied in/ and out/ takes, as it goes.
#
#   BUILD=build/release tests/bench/churn.sh [COUNT]
. "$(dirname "$0")/lib.sh"
count=${1:-1000000}
size=2000
bench_mount -o null_backend
mkdir -p "$ml/models/m/1" "$ml/infer/app"
echo '{"submodels":[{"slice":1,"accuracy":0.9,"ms":1,"one_ms":0.01}],"classes":10}' >"$ml/models/m/1/model.json"
: >"$ml/models/m/1/weights.safetensors"
echo '{"model":"m","version":1,"batch":64}' >"$ml/infer/app/spec.json"
"$inferfs" wait "$ml/infer/app/slices.csv" --timeout 30s
in=$ml/infer/app/in out=$ml/infer/app/out

list_ms() {
	local start
	start=$(date +%s%N)
	ls -a "$1" >/dev/null
	echo $((($(date +%s%N) - start) / 1000000))
}
row() { # DONE
	printf '%9d %8d %6d %8d %8d %8d %7d\n' "$1" "$(rss_mib "$daemon")" "$(ls "/proc/$daemon/fd" | wc -l)" \
		"$(du -sm "$state" | cut -f1)" "$(list_ms "$in")" "$(list_ms "$out")" "$SECONDS"
}
echo "instances  RSS MiB    fds state MB  in/ ms  out/ ms    at s"
row 0
for ((done = 0; done < count; done += size)); do
	mkdir "$in/.b"
	"$BUILD/tools/smallfiles" create "$in/.b" $size 700 1 >/dev/null
	mv "$in/.b" "$in/b$done"
	"$inferfs" wait "$out/b$done/task.json" --timeout 2m
	[ "$(ls "$out/b$done" | wc -l)" -ge $size ]
	rm -r "$in/b$done" "$out/b$done"
	[ $(((done + size) % (count / 10))) -ne 0 ] || row $((done + size))
done
