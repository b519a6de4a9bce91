#!/usr/bin/env bash
# One large file, through the mount and on the disk beneath it, in turns: write (until fsync has returned), read with cold caches, read
# again. MiB/s, medians of ROUNDS.
#
#   BUILD=build/release TMPDIR=/on/a/disk tests/bench/streaming.sh [MIB]
. "$(dirname "$0")/lib.sh"
mib=${1:-2048}
rounds=${ROUNDS:-5}
bench_mount
ours=$ml/models/stream # not below datasets/: a scan would read it at the same time
mkdir "$ours" "$work/beneath"

rate() { # COMMAND…
	local start
	start=$(date +%s%N)
	"$@" 2>/dev/null
	awk -v t=$(($(date +%s%N) - start)) -v m="$mib" 'BEGIN { printf "%.0f\n", m / t * 1e9 }'
}
cold() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
}
median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

for ((round = 0; round < rounds; round++)); do
	for where in "$ours" "$work/beneath"; do
		name=$([ "$where" = "$work/beneath" ] && echo beneath || echo ours)
		cold
		rate dd if=/dev/zero of="$where/f" bs=1M count="$mib" conv=fsync >>"$work/write-$name"
		cold
		rate dd if="$where/f" of=/dev/null bs=1M >>"$work/cold-$name"
		rate dd if="$where/f" of=/dev/null bs=1M >>"$work/cached-$name"
		rm "$where/f"
	done
done
printf '%-8s %8s %8s %6s\n' MiB/s ours beneath share
for what in write cold cached; do
	ours=$(median <"$work/$what-ours") beneath=$(median <"$work/$what-beneath")
	printf '%-8s %8s %8s %5.0f%%\n' $what "$ours" "$beneath" "$(awk -v a="$ours" -v b="$beneath" 'BEGIN { print 100 * a / b }')"
done
