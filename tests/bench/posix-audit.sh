#!/usr/bin/env bash
# How much of POSIX holds: runs pjdfstest (public repository pjd/pjdfstest, built by autoreconf -ifs, configure, make)
# below datasets/ of a mount, as root, and prints what passed, failed and was skipped.
#
#   BUILD=build/release tests/bench/posix-audit.sh PJDFSTEST_DIR
#
# A check that the suite itself expects to fail on Linux ("TODO") is counted by itself; a file whose subject the
# suite does not know on Linux (chflags …) says "1..1 ok 1" and is counted as skipped. 1 when anything failed.
. "$(dirname "$0")/lib.sh"
suite=$(realpath "${1:?usage: posix-audit.sh PJDFSTEST_DIR}")
[ -x "$suite/pjdfstest" ] || {
	echo "$suite/pjdfstest is not there: build it first" >&2
	exit 2
}

cp -r "$suite/tests" "$suite/pjdfstest" "$work/"
# By default it asks less of a filesystem that it doesn't know (ctime of a renamed file): ask for all of ext4's.
echo 'fs=EXT4' >>"$work/tests/conf"
mkdir "$work/tap"
bench_mount -o allow_other
mkdir "$ml/datasets/x"

one() { # FILE
	cd "$ml/datasets/x" && sh "$work/tests/$1" </dev/null >"$work/tap/${1//\//%}" 2>/dev/null || true
}
export -f one
export ml work
(cd "$work/tests" && find . -name '*.t' -printf '%P\n') | sort |
	xargs -P "$(nproc)" -I{} bash -c 'one {}'

cd "$work/tap"
rc=0
awk '
	FNR == 1 { if (file) end(); file = FILENAME; plan = n = bad = todo = 0 }
	/^1\.\.[0-9]+/ { plan = substr($1, 4) + 0; if (/SKIP/) plan = -1; next }
	/^ok/ { n++; next }
	/^not ok .*# TODO/ { n++; todo++; next }
	/^not ok/ { n++; bad++; line[++n_lines] = FILENAME ": " $0 }
	function end() {
		files++
		if (plan == -1 || (plan == 1 && n == 1 && !bad)) { skipped++; why[file] = 1; return }
		passed += n - bad - todo; failed += bad; todos += todo
		if (n != plan) { failed++; line[++n_lines] = file ": planned " plan ", made " n }
	}
	END {
		end()
		printf "passed %d, failed %d, expected to fail on Linux %d; files %d, of them skipped %d\n",
			passed, failed, todos, files, skipped
		for (i = 1; i <= n_lines; i++) print "FAILED " line[i]
		for (f in why) print f > "../skipped"
		exit failed > 0
	}' *.t || rc=1
echo "expected to fail on Linux, by reason:"
sed -n 's/^not ok [0-9]* # TODO //p' *.t | sort | uniq -c
echo "skipped files, by what the suite requires there:"
while read -r file; do
	sed -nE 's/^require "?([a-zA-Z_]+)"?.*/\1/p; /"FreeBSD[^ ]*" \] \|\| quick_exit/s/.*/FreeBSD/p
		/^nfsv4acls \|\| quick_exit/s/.*/NFSv4 ACLs/p; /unsupported OS/s/.*/FreeBSD/p' \
		"$work/tests/${file//%//}" |
		grep -vxE "link|mknod|utimensat" | head -n 1
done <../skipped | sort | uniq -c
cd "$work"
"$inferfs" umount "$ml"
daemon=
"$inferfs" fsck "$state"
exit $rc
