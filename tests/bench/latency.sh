#!/usr/bin/env bash
# A loose file on an idle endpoint with an ample deadline: end of close() to the answer in inotify, with the default
# settle time and with none.
source "$(dirname "$0")/lib.sh"
n=${N:-50}

bench_mount ${OPTIONS:+-o "$OPTIONS"}
bench_model
bench_png 1
for settle in 50ms 0; do
	bench_endpoint "app$settle" '{"model":"fashion","deadline":"5s","settle":"'$settle'"}'
	echo "settle $settle: $("$BUILD/tools/latency" "$ml/infer/app$settle" "$work"/png/*.png "$n" | tail -n 1)"
done
