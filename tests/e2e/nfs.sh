#!/bin/bash
# NFS-Ganesha in user space over the mount, with clients of NFS version 3 and 4: they list, copy a batch in, set its deadline by
# `.deadline` and read the answers, while local users work on the same tree.
#
# All of it runs in namespaces of its own: the servers' ports are on a loopback interface that nobody else sees, and
# whatever is left when the test ends, ends with it.
if [[ -z ${NFS_INSIDE:-} ]]; then
	for tool in ganesha.nfsd rpcbind nfs-ls nfs-cat nfs-cp python3 unshare ip; do
		PATH=$PATH:/usr/sbin:/sbin command -v $tool >/dev/null && continue
		echo "no $tool here: examples/install-packages.sh test installs it"
		[[ -z ${CI:-} ]] && exit 77
		exit 1
	done
	if ! unshare --net --mount --pid --fork --mount-proc true 2>/dev/null; then
		echo "skipped: no namespaces of our own here (root may make them)"
		exit 77
	fi
	NFS_INSIDE=1 exec unshare --net --mount --pid --fork --kill-child --mount-proc "$BASH" "$0"
fi
PATH=$PATH:/usr/sbin:/sbin
. "$(dirname "$0")/lib.sh"
nfs_py=$(dirname "$0")/../tools/nfs.py
servers=()
stop_servers()
{
	local status=$?
	set +e
	trap - ERR
	if ((status)); then tail -n 15 "$DIR/ganesha.log" "$DIR/out" >&2; fi
	((${#servers[@]} == 0)) || kill -9 "${servers[@]}" 2>/dev/null
	wait "${servers[@]}" 2>/dev/null
	return $status
}
trap 'stop_servers; finish' EXIT

start -o null_backend,settle=20ms,settle_batch=60s # a batch is submitted by its deadline, not by being quiet
mkdir -p "$MNT/models/m/1" "$MNT/infer/app" "$MNT/datasets/d" "$MNT/datasets/local"
echo '{"submodels":[{"slice":1,"accuracy":0.9,"ms":1,"one_ms":1}],"classes":10}' >"$MNT/models/m/1/model.json"
: >"$MNT/models/m/1/weights.safetensors"
echo '{"model":"m","version":1}' >"$MNT/infer/app/spec.json"
eventually 10 grep -q running "$MNT/infer/app/state"

mount -t tmpfs none /run # rpcbind's lock and socket
ip link set lo up
cat >"$DIR/ganesha.conf" <<C
NFS_CORE_PARAM { Protocols = 3, 4; mount_path_pseudo = true; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }
NFSV4 { Graceless = true; Minor_Versions = 0, 1, 2; RecoveryBackend = fs; RecoveryRoot = "$DIR"; Only_Numeric_Owners = true; }
EXPORT {
	Export_Id = 1; Path = "$MNT"; Pseudo = /ml; Filesystem_Id = 7.7; Attr_Expiration_Time = 0;
	Protocols = 3, 4; Transports = TCP; SecType = sys; Squash = None; Access_Type = RW;
	FSAL { Name = VFS; }
}
C
rpcbind -f -w >"$DIR/out" 2>&1 &
servers+=($!)
eventually 5 test -S /run/rpcbind.sock
ganesha.nfsd -F -f "$DIR/ganesha.conf" -L "$DIR/ganesha.log" -p "$DIR/ganesha.pid" -N NIV_EVENT >>"$DIR/out" 2>&1 &
servers+=($!)

url() # VERSION PATH
{
	echo "nfs://127.0.0.1/ml$2?version=$1"
}

# client VERSION COMMAND…
client()
{
	timeout 20 python3 "$nfs_py" "$1" /ml "${@:2}" || fail "NFSv$1: ${*:2}"
}
eventually 10 timeout 2 nfs-ls "$(url 3 /)"

sizes=(0 1 5000 65535 65536 65537 1048576)
mkdir "$DIR/batch"
for n in "${sizes[@]}"; do head -c "$n" /dev/urandom >"$DIR/batch/f$n.png"; done
for i in {1..20}; do head -c $((i * 97)) /dev/urandom >"$DIR/batch/s$i.png"; done

# Somebody at the machine itself: makes, reads, renames and removes beside the clients all the while.
(
	set +e
	trap - ERR EXIT
	for ((i = 0; ; i++)); do
		mkdir "$MNT/datasets/local/$((i % 7))" 2>/dev/null
		echo "$i" >"$MNT/datasets/local/$((i % 7))/.x" && mv "$MNT/datasets/local/$((i % 7))/.x" "$MNT/datasets/local/$((i % 7))/x"
		[[ $(cat "$MNT/datasets/local/$((i % 7))/x") == "$i" ]] || echo "round $i" >>"$DIR/local-bad"
		((i % 5)) || rm -r "$MNT/datasets/local/$((i % 7))"
		ls -lR "$MNT/infer/app" "$MNT/datasets" >/dev/null 2>&1
	done
) &
local_user=$!
servers+=($local_user)

eventually 10 test -e "$MNT/events" # the last to come
for v in 3 4; do
	echo "NFSv$v: files (at $SECONDS s)"
	same "$(ls "$MNT" | sort)" "$(timeout 5 nfs-ls "$(url $v /)" | awk '{ print $NF }' | sort)" "the root's listing"
	for f in "$DIR"/batch/*; do
		to=/datasets/d/v$v-${f##*/}
		if [[ $v == 3 || $(stat -c %s "$f") -lt 2000 ]]; then
			timeout 20 nfs-cp "$f" "$(url $v "$to")" >/dev/null || fail "nfs-cp $f $to"
		else
			client $v put "$f" "$to"
		fi
		cmp "$f" "$MNT$to"
		timeout 20 nfs-cat "$(url $v "$to")" >"$DIR/back" || fail "nfs-cat $to"
		cmp "$f" "$DIR/back"
	done
	client $v put "$DIR/batch/s1.png" /datasets/d/a -- rename /datasets/d/a /datasets/d/b -- put "$DIR/batch/s2.png" /datasets/d/a
	cmp "$DIR/batch/s1.png" "$MNT/datasets/d/b"
	cmp "$DIR/batch/s2.png" "$MNT/datasets/d/a"
	mv "$MNT/datasets/d/a" "$MNT/datasets/d/b" # here; the client sees it at once
	client $v cat /datasets/d/b >"$DIR/back"
	cmp "$DIR/batch/s2.png" "$DIR/back"
	client $v unlink /datasets/d/b -- mkdir /datasets/d/sub -- put "$DIR/batch/s3.png" /datasets/d/sub/x
	[[ ! -e $MNT/datasets/d/b ]] || fail "b is still there"
	rm -r "$MNT/datasets/d/sub"
	same "" "$(client $v ls /datasets/d | grep -xE 'a|b|sub' || true)" "what was removed on both sides"

	echo "NFSv$v: a batch (at $SECONDS s)"
	b=/infer/app/in/b$v
	client $v mkdir $b
	args=()
	for f in "$DIR"/batch/*; do args+=(put "$f" "$b/${f##*/}" --); done
	client $v "${args[@]:0:${#args[@]}-1}" &
	copy=$!
	cp -r "$DIR/batch" "$MNT/infer/app/in/local$v" # a local user's batch of the same endpoint
	setfattr -n user.deadline -v 30s "$MNT/infer/app/in/local$v"
	wait $copy
	for f in "$DIR"/batch/*; do cmp "$f" "$MNT$b/${f##*/}"; done
	[[ ! -e $MNT/infer/app/out/b$v/task.json ]] || fail "b$v was submitted before its deadline was set"
	echo 30s >"$DIR/deadline"
	client $v put "$DIR/deadline" $b/.deadline
	for batch in b$v local$v; do
		"$INFERFS" wait "$MNT/infer/app/out/$batch/task.json" --timeout 20s || fail "$batch is not answered: $(ls -la "$MNT/infer/app/out/$batch")"
	done
	same 30s "$(getfattr --only-values -n user.deadline "$MNT$b" 2>/dev/null)" "the deadline"
	same "$(ls "$MNT/infer/app/out/b$v" | sort)" "$(client $v ls /infer/app/out/b$v | sort)" "names of answers"
	mkdir "$DIR/answers$v"
	for f in "$DIR"/batch/*; do
		f=${f##*/}
		timeout 5 nfs-cat "$(url $v "/infer/app/out/b$v/$f.json")" >"$DIR/answers$v/$f.json" || fail "no answer to $f by NFSv$v"
		cmp "$MNT/infer/app/out/b$v/$f.json" "$DIR/answers$v/$f.json"
	done
	python3 - "$DIR/answers$v" "$v" <<'P'
import json, os, sys
answers = [json.load(open(os.path.join(sys.argv[1], f))) for f in os.listdir(sys.argv[1])]
assert len(answers) == 27, len(answers)
assert {a["file"].split("/", 1)[0] for a in answers} == {"b" + sys.argv[2]}, answers[0]
other = [(os.path.basename(a["file"]), a["status"]) for a in answers if a["status"] != "ok"]
assert other == [("f0.png", "failed")], other  # empty, which is no image
P
done
[[ ! -e $DIR/local-bad ]] || fail "the local user read something else than was written: $(head -3 "$DIR/local-bad")"
kill -0 $local_user || fail "the local user's loop ended"
same 4 "$(($(wc -l <"$MNT/infer/app/schedule.csv") - 1))" "tasks: each batch was one"
kill -9 "${servers[@]}"
wait "${servers[@]}" 2>/dev/null || true
stop
"$INFERFS" fsck "$STATE"
