#!/bin/bash
# Idle cores are kept awake (PM QoS) while requests come, and for no longer; not with -o power_save.
. "$(dirname "$0")/lib.sh"
[ -w /dev/cpu_dma_latency ] || skip "no /dev/cpu_dma_latency to write to here"
(exec 3<>/dev/cpu_dma_latency) 2>/dev/null || skip "/dev/cpu_dma_latency can't be opened here"

awake()
{
	[[ $(readlink "/proc/$(daemon_pid)/fd/"* 2>/dev/null) == *cpu_dma_latency* ]]
}
asleep()
{
	! awake
}
work() # requests until it is killed
{
	while :; do
		echo text >"$MNT/datasets/d/file"
		rm "$MNT/datasets/d/file"
	done
}
worker=
end_work()
{
	local status=$?
	set +e
	trap - ERR
	[[ -z $worker ]] || kill "$worker" 2>/dev/null
	[[ -z $worker ]] || wait "$worker" 2>/dev/null
	worker=
	return $status
}
trap 'end_work; finish' EXIT

start
mkdir "$MNT/datasets/d"
eventually 5 asleep
work &
worker=$!
eventually 5 awake
end_work
eventually 5 asleep
stop

start -o power_save
work &
worker=$!
for _ in $(seq 20); do
	asleep || fail "awake, in spite of power_save"
	sleep 0.02
done
end_work
