#!/usr/bin/env bash
# A burst of N instances on an endpoint whose queue is bounded: first while it is stopped (so that all of them wait), then started; as loose files and as
# one batch directory. Prints the longest calls of who copies and of another client meanwhile, the daemon's resident memory before, its peak
# until all were copied and until all were answered, answers by status, and times.
#
#	MODEL=DIRECTORY N=100000 OPTIONS=queue=10000 KINDS="loose batch" RUNNING=no DEADLINE= tests/bench/burst.sh
#
# With RUNNING=yes the endpoint is not stopped; with a DEADLINE (of in/) what does not get its turn by then is dropped.
source "$(dirname "$0")/lib.sh"
n=${N:-100000}

peak_mib() {
	awk '/^VmHWM/ { printf "%.0f", $2 / 1024 }' "/proc/$daemon/status"
}

bench_mount ${OPTIONS:+-o "$OPTIONS"}
bench_model
bench_endpoint app '{"model":"fashion"}'
bench_png 10000
app=$ml/infer/app
[ -z "${DEADLINE:-}" ] || setfattr -n user.deadline -v "$DEADLINE" "$app/in"
answers() {
	awk '/^infer\/app / { for (i = 1; i <= NF; i++) if (split($i, kv, "=") == 2 && kv[1] ~ /^(ok|late|dropped|failed)$/) sum += kv[2]; print sum }' "$ml/status"
}

for kind in ${KINDS:-loose batch}; do
	to=$app/in
	if [ "$kind" = batch ]; then
		to=$app/in/b
		mkdir "$to"
	fi
	if [ "${RUNNING:-no}" = no ]; then
		echo stop >"$app/ctl"
		until grep -qx stopped "$app/state"; do sleep 0.05; done
	fi
	before=$(answers)
	sleep 1
	echo 5 >"/proc/$daemon/clear_refs"
	echo "$kind: resident before: $(rss_mib "$daemon") MiB"
	"$BUILD/tools/burst" probe "$ml" >"$work/probe" &
	probe=$!
	started=$SECONDS
	echo "$kind: copying: $("$BUILD/tools/burst" copy "$work/png" "$to" "$n")"
	sleep 3
	echo "$kind: peak until copied: $(peak_mib) MiB, resident: $(rss_mib "$daemon") MiB"
	echo "$kind: $(grep ^infer/app "$ml/status")"
	echo start >"$app/ctl"
	(while sleep 10; do echo "$kind: $((SECONDS - started)) s: $(rss_mib "$daemon") MiB, $(answers) answers" || true; done) &
	ticker=$!
	until [ $(($(answers) - before)) -ge "$n" ]; do sleep 0.5; done
	[ "$kind" = loose ] || "$inferfs" wait "$app/out/b/task.json" --timeout 2m
	kill $ticker
	echo "$kind: $(grep ^infer/app "$ml/status")"
	echo "$kind: all answered after $((SECONDS - started)) s, peak: $(peak_mib) MiB, resident: $(rss_mib "$daemon") MiB"
	kill $probe
	wait $probe || true
	echo "$kind: the other client: $(cat "$work/probe")"
	if [ "$kind" = batch ]; then
		echo "$kind: results.csv has $(($(wc -l <"$app/out/b/results.csv") - 1)) rows"
	else
		echo "$kind: out/ has $(find "$app/out" -maxdepth 1 -name '*.json' | wc -l) answers"
	fi
done
