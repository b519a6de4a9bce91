# Sourced by every end-to-end test:
#	. "$(dirname "$0")/lib.sh"
#	start			# $MNT is a fresh mounted tree, kept in $STATE; options of mount may follow
#	…			# any failing command fails the test (set -e), with its line
# Each test has a directory of its own ($DIR, removed when the test passes; the daemon's log is shown when it
# fails), and ends its daemon however it ends.
set -Eeuo pipefail

: "${INFERFS:?set INFERFS to the inferfs binary}"
NAME=$(basename "$0" .sh)
DIR=$(mktemp -d "${TMPDIR:-/tmp}/inferfs-$NAME.XXXXXX")
STATE=$DIR/state
MNT=$DIR/mnt
FAILED_AT=
mkdir "$MNT"

skip()
{
	echo "skipped: $*"
	exit 77
}

# fail TEXT: ends the test, naming the caller's line
fail()
{
	echo "$0:${BASH_LINENO[0]}: $*" >&2
	FAILED_AT=said
	exit 1
}

need()
{
	local tool

	for tool; do
		command -v "$tool" >/dev/null || skip "no $tool here"
	done
}

daemon_pid()
{
	cut -d' ' -f1 "$STATE/pid" 2>/dev/null
}

start()
{
	"$INFERFS" mount "$STATE" "$MNT" "$@"
}

stop()
{
	"$INFERFS" umount "$MNT" --timeout 30s
}

# amount PLAIN SANITIZED: with sanitizers a run takes some times as long, and sees the same code in a part of the work
amount()
{
	if [[ -n ${SANITIZE:-} ]]; then echo "$2"; else echo "$1"; fi
}

# gone PID: it has ended, all its threads too. It may be a zombie: who has to reap it (in a container often a process 1 that looks
# every few seconds) is not our matter.
gone()
{
	local stat

	stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
	[[ ${stat##*) } == [ZX]* && $(ls "/proc/$1/task" 2>/dev/null | wc -l) -le 1 ]]
}

# As a power switch for the daemon; the mount stays behind, dead.
kill_daemon()
{
	local pid

	pid=$(daemon_pid)
	kill -9 "$pid"
	until gone "$pid"; do sleep 0.02; done
}

# expect ERRNO-TEXT COMMAND…: the command must fail and say so
expect()
{
	local what=$1 out
	shift
	if out=$(LC_ALL=C "$@" 2>&1); then
		fail "should have failed with '$what': $*"
	fi
	[[ $out == *"$what"* ]] || fail "'$*' said '$out' rather than '$what'"
}

# same WANTED GOT [WHAT]
same()
{
	[[ $1 == "$2" ]] || {
		echo "$0:${BASH_LINENO[0]}: ${3:-values}: wanted '$1', got '$2'" >&2
		FAILED_AT=said
		exit 1
	}
}

# eventually SECONDS COMMAND…
eventually()
{
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		((SECONDS < end)) || fail "not in time: $*"
		sleep 0.05
	done
}

finish()
{
	local status=$? pid

	set +e
	trap - EXIT ERR
	cd /
	pid=$(daemon_pid)
	if mountpoint -q "$MNT" || [[ -n $pid ]]; then
		"$INFERFS" umount "$MNT" --timeout 20s >/dev/null 2>&1
		if [[ -n $pid ]] && ! gone "$pid"; then
			kill -9 "$pid"
			[[ $status -eq 0 ]] && status=1 && echo "$0: the daemon had to be killed" >&2
		fi
		umount -l "$MNT" 2>/dev/null
	fi
	# Builds with sanitizers: the daemon's and its workers' words count as the test's.
	if [[ -f $STATE/log ]] && grep -aqE '(Address|Leak|Thread)Sanitizer|: runtime error: ' "$STATE/log"; then
		status=1
		FAILED_AT=said
		echo "$0: a sanitizer spoke in the daemon's log" >&2
		grep -anE -A 20 '(Address|Leak|Thread)Sanitizer|: runtime error: ' "$STATE/log" | head -n 60 >&2
	fi
	if [[ $status -ne 0 && $status -ne 77 ]]; then
		[[ -n $FAILED_AT ]] || echo "$0: failed (status $status)" >&2
		[[ -f $STATE/log ]] && tail -n 40 "$STATE/log" >&2
		echo "left for a look: $DIR" >&2
	else
		rm -rf "$DIR"
	fi
	exit $status
}
trap finish EXIT
trap 'echo "$0:$LINENO: failed: $BASH_COMMAND" >&2; FAILED_AT=said' ERR

[[ -c /dev/fuse ]] || skip "no /dev/fuse here"
[[ $(id -u) -eq 0 ]] || command -v fusermount3 >/dev/null || skip "no fusermount3 here"
