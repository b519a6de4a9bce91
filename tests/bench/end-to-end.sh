#!/usr/bin/env bash
# N PNGs as one batch: from the beginning of `cp` to the last answer, against what the worker alone needs for the same files (the CPU time
# of its one thread meanwhile). Prints slices.csv, whose times are those of an undisturbed worker, and for each round: µs an image of cp, of the
# answers after it, of the worker, and the worker's share of all.
#
#	MODEL=DIRECTORY [N=10000] [ROUNDS=2] [DEADLINE=10m] [OPTIONS=no_ahead] tests/bench/end-to-end.sh
source "$(dirname "$0")/lib.sh"
n=${N:-10000}

bench_mount -o "worker_threads=1${OPTIONS:+,$OPTIONS}"
bench_model
bench_endpoint app '{"model":"fashion","settle_batch":"10m"}'
bench_png "$n"
sync
app=$ml/infer/app
cat "$app/slices.csv"
worker=$(workers infer)
hz=$(getconf CLK_TCK)

now_us() { echo $(($(date +%s%N) / 1000)); }

worker_us() { awk -v hz="$hz" '{ sub(/.*\) /, ""); print int(($12 + $13) * 1e6 / hz) }' "/proc/$worker/stat"; }

for round in $(seq "${ROUNDS:-2}"); do
	begun=$(now_us) before=$(worker_us)
	cp -r "$work/png" "$app/in/b$round"
	copied=$(now_us)
	setfattr -n user.deadline -v "${DEADLINE:-10m}" "$app/in/b$round"
	"$inferfs" wait "$app/out/b$round/task.json" --timeout 20m
	ended=$(now_us) after=$(worker_us)
	awk -v n="$n" -v cp=$((copied - begun)) -v answers=$((ended - copied)) -v worker=$((after - before)) 'BEGIN {
		printf "cp %.1f, answers %.1f, worker %.1f µs an image: %.1f %%\n", cp / n, answers / n, worker / n,
		       100 * worker / (cp + answers)
	}'
done
