#!/usr/bin/env bash
# The filesystem's speed beside libfuse's examples, in the same run: PASSTHROUGH_LL and PASSTHROUGH_HP name their binaries (built from
# libfuse's example/ of the installed version). Medians of ROUNDS; both keep their files on a tmpfs, if TMPDIR is none.
#
#   PASSTHROUGH_LL=/path/passthrough_ll PASSTHROUGH_HP=/path/passthrough_hp tests/bench/fs-speed.sh
: "${PASSTHROUGH_LL:?the binary of libfuse example passthrough_ll}" "${PASSTHROUGH_HP:?… passthrough_hp}"
[ "$(stat -f -c %T "${TMPDIR:-/tmp}")" = tmpfs ] || export TMPDIR=/dev/shm
source "$(dirname "$0")/lib.sh"
rounds=${ROUNDS:-5}
peer=$work/peer
mkdir "$peer" "$work/beneath"
peer_pid=

peer_end() {
	[ -z "$peer_pid" ] || { umount "$peer" 2>/dev/null || umount -l "$peer"; wait "$peer_pid" 2>/dev/null || true; }
	peer_pid=
}
trap 'peer_end; bench_end' EXIT

peer_ll() { # OPTIONS
	"$PASSTHROUGH_LL" -f -o "source=$work/beneath,$1" "$peer" >>"$work/log" 2>&1 &
	peer_pid=$!
	peer_wait
}
peer_hp() {
	"$PASSTHROUGH_HP" --foreground "$work/beneath" "$peer" >>"$work/log" 2>&1 &
	peer_pid=$!
	peer_wait
}
peer_wait() {
	for _ in $(seq 100); do
		! mountpoint -q "$peer" || return 0
		sleep 0.05
	done
	echo "the peer does not mount" >&2
	return 1
}

median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
seconds() { # COMMAND…
	local start
	start=$(date +%s%N)
	"$@" >/dev/null
	awk -v t=$(($(date +%s%N) - start)) 'BEGIN { printf "%.3f\n", t / 1e9 }'
}
cold() { echo 3 >/proc/sys/vm/drop_caches; }
# row NAME UNIT OURS PEER ASKED: higher is better when UNIT is a rate
row() { printf '%-58s %10s %10s %-8s %s\n' "$1" "$3" "$4" "$2" "$5"; }

bench_mount
mkdir "$ml/datasets/d"
ours=$ml/datasets/d
row "what" "" ours peer asked

for threads in 1 4; do
	peer_ll cache=auto
	for r in $(seq "$rounds"); do
		mkdir "$ours/c" "$peer/c"
		"$BUILD/tools/smallfiles" create "$ours/c" 10000 4096 $threads >>"$work/ours$threads"
		"$BUILD/tools/smallfiles" create "$peer/c" 10000 4096 $threads >>"$work/peer$threads"
		rm -rf "$ours/c" "$peer/c"
	done
	peer_end
	row "create+write+close 4 KB, $threads thread(s), passthrough_ll" files/s "$(median <"$work/ours$threads")" \
		"$(median <"$work/peer$threads")" "2 x"
done

# 10,000 files of 1 to 20 KB, the same for all
mkdir "$work/images"
python3 - "$work/images" <<'P'
import os, random, sys
random.seed(1)
for d in range(10):
    os.mkdir("%s/%d" % (sys.argv[1], d))
    for i in range(1000):
        open("%s/%d/%04d.png" % (sys.argv[1], d, i), "wb").write(random.randbytes(random.randint(1024, 20480)))
P
peer_ll cache=always
for r in $(seq "$rounds"); do
	seconds cp -r "$work/images" "$ours/images" >>"$work/cp-ours"
	seconds cp -r "$work/images" "$peer/images" >>"$work/cp-peer"
	[ "$r" = "$rounds" ] || rm -rf "$ours/images" "$peer/images"
done
row "cp -r 10,000 files of 1-20 KB, passthrough_ll cache=always" s "$(median <"$work/cp-ours")" "$(median <"$work/cp-peer")" "1/3"
read_all() { find "$1" -type f -print0 | xargs -0 -n 500 cat; }
for r in $(seq "$rounds"); do
	cold
	seconds read_all "$ours/images" >>"$work/cold-ours"
	cold
	seconds read_all "$peer/images" >>"$work/cold-peer"
done
row "cold open+read+close of 10,000, passthrough_ll" s "$(median <"$work/cold-ours")" "$(median <"$work/cold-peer")" "1/1.5"
peer_end
rm -rf "$ours/images" "$work/beneath/images"

for n in 15000 100000; do
	mkdir "$ours/l" "$work/beneath/l"
	"$BUILD/tools/smallfiles" create "$ours/l" $n 10 4 >/dev/null
	"$BUILD/tools/smallfiles" create "$work/beneath/l" $n 10 4 >/dev/null
	: >"$work/ls-ours" >"$work/ls-peer"
	for r in $(seq "$rounds"); do
		if [ $n = 15000 ]; then # more than 19,980 files are too many for it
			peer_hp
			seconds ls -l "$peer/l" >>"$work/ls-peer"
			peer_end
		fi
		cold
		seconds ls -l "$ours/l" >>"$work/ls-ours"
	done
	row "ls -l of $n, caches dropped, passthrough_hp" s "$(median <"$work/ls-ours")" "$(median <"$work/ls-peer")" "1 x, linear"
	rm -rf "$ours/l" "$work/beneath/l"
done

# Fashion-MNIST as PNG, one archive: passthrough_ll keeps a descriptor for each inode, and where it may have 20,000 it can't unpack more
mkdir "$work/png"
train=$data/train-images-idx3-ubyte.gz
"$BUILD/examples/idx2png" "$train" "${train/images-idx3/labels-idx1}" "$work/png/train" 0 60000
"$BUILD/examples/idx2png" "${train/train/t10k}" "$data/t10k-labels-idx1-ubyte.gz" "$work/png/test" 0 10000
tar cf "$work/70000.tar" -C "$work" png
(cd "$work" && find png -type f >all && head -n 15000 all >names && tar cf 15000.tar -T names)
rm -rf "$work/png"
peer_ll cache=auto
for r in $(seq "$rounds"); do
	mkdir "$ours/t" "$ours/u" "$peer/t"
	seconds tar xf "$work/70000.tar" -C "$ours/u" >>"$work/tar-all"
	seconds tar xf "$work/15000.tar" -C "$ours/t" >>"$work/tar-ours"
	seconds tar xf "$work/15000.tar" -C "$peer/t" >>"$work/tar-peer"
	rm -rf "$ours/t" "$ours/u" "$peer/t"
done
peer_end
row "tar xf of 15,000 PNGs, passthrough_ll" s "$(median <"$work/tar-ours")" "$(median <"$work/tar-peer")" "1 x"
row "tar xf of 70,000 PNGs" s "$(median <"$work/tar-all")" - ""
