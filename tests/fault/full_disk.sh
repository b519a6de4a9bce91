#!/bin/bash
# A full disk beneath the state directory, max_bytes, and a disk that fails: what needs room is refused at the call, nothing that was
# there is lost, removing works and makes room again, the scheduler goes on without a restart, and `status` says so meanwhile.
. "$(dirname "$0")/../e2e/lib.sh"
. "$(dirname "$0")/../support/disk.sh"
need python3 setfattr
disk_make ext4 640M

serving()
{
	mkdir -p "$MNT/models/m/1" "$MNT/infer/app"
	echo '{"submodels":[{"slice":1,"accuracy":0.9,"ms":1,"one_ms":1}],"classes":10}' >"$MNT/models/m/1/model.json"
	: >"$MNT/models/m/1/weights.safetensors"
	echo '{"model":"m","version":1}' >"$MNT/infer/app/spec.json"
	eventually 10 grep -q running "$MNT/infer/app/state"
}

# ERRNO: writes files until that is the answer, at the call; what was acknowledged stays whole
fill()
{
	python3 - "$MNT/datasets/d" "$1" <<'P'
import errno, hashlib, json, os, sys, time
dir, want = sys.argv[1], getattr(errno, sys.argv[2])
made = {}
serial = os.getpid()

def put(size):
    name = "%s/%d-%d-%d" % (dir, size, serial, len(made))
    data = hashlib.shake_128(name.encode()).digest(size)
    try:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except OSError as e:
        assert e.errno == want, e
        return False
    try:
        n = os.write(fd, data)
    except OSError as e:
        assert e.errno == want, e
        os.close(fd)
        os.unlink(name)
        return False
    os.close(fd)  # never fails: the write said it
    made[name] = hashlib.sha256(data[:n]).hexdigest()
    return True

for i in range(1000):
    if not put(30000):
        break
while put(3000000):
    pass
last = begin = time.monotonic()
while time.monotonic() < last + 1 and time.monotonic() < begin + 20:  # compaction makes room for a while
    if put(30000) or put(1000):
        last = time.monotonic()
    else:
        time.sleep(0.02)
json.dump(made, open(os.environ["DIR"] + "/made", "w"))
print(len(made), "files until", sys.argv[2])
P
}

whole()
{
	python3 - <<'P'
import hashlib, json, os
made = json.load(open(os.environ["DIR"] + "/made"))
for name, sha in made.items():
    assert hashlib.sha256(open(name, "rb").read()).hexdigest() == sha, name
P
}

# TEXT: of the errno
refused()
{
	local d=$MNT/datasets/d

	expect "$1" mkdir "$d/dir"
	expect "$1" touch "$d/file"
	expect "$1" setfattr -n user.x -v y "$d/first"
	expect "$1" ln "$d/first" "$d/link"
	expect "$1" dd if=/dev/zero of="$d/first" bs=4096 count=1 oflag=append conv=notrunc
	mv "$d/first" "$d/first2" # takes nothing that is not kept for it
	mv "$d/first2" "$d/first"
	eventually 5 grep -q '^volume full: .*, since 20' "$MNT/status"
}

room_again()
{
	cp "$DIR/word" "$MNT/datasets/d/again" && ! grep -q '^volume' "$MNT/status"
}

empty()
{
	find "$MNT/datasets/d" -name '3*' -delete # contents in RocksDB and in blobs
	eventually 20 room_again
}

export DIR
echo word >"$DIR/word"
for limit in disk max_bytes; do
	echo "full: $limit"
	if [[ $limit == disk ]]; then
		errno=ENOSPC text='No space left on device'
		start -o null_backend
	else
		errno=EDQUOT text='Disk quota exceeded'
		rm -r "$STATE"
		start -o null_backend,max_bytes=300M
		[[ $(df --output=size -B1M "$MNT" | tail -n 1) -le 300 ]] || fail "df does not show max_bytes"
	fi
	[[ -e $MNT/infer/app ]] || serving
	mkdir "$MNT/datasets/d" "$MNT/infer/app/in/.$limit"{1,2,3}
	cp "$DIR/word" "$MNT/datasets/d/first"
	for b in 1 2 3; do
		for i in {1..40}; do cp "$DIR/word" "$MNT/infer/app/in/.$limit$b/$i.png"; done
	done
	fill $errno
	refused "$text"
	whole
	for b in 1 2 3; do # the answers have to wait (unless RocksDB has just found some room: then once more)
		fill $errno
		mv "$MNT/infer/app/in/.$limit$b" "$MNT/infer/app/in/$limit$b"
		sleep 1
		[[ -e $MNT/infer/app/out/$limit$b/task.json ]] || break
	done
	[[ ! -e $MNT/infer/app/out/$limit$b/task.json ]] || fail "answers were stored where there was no room"
	empty
	"$INFERFS" wait "$MNT/infer/app/out/$limit$b/task.json" --timeout 20s
	same 40 "$(ls "$MNT/infer/app/out/$limit$b" | grep -c 'png.json$')" answers
	rm -r "$MNT/datasets/d"
	stop
	"$INFERFS" fsck "$STATE"
done

echo "unreadable and short contents"
start -o null_backend
mkdir "$MNT/datasets/d"
for i in a b; do
	head -c 300000 /dev/urandom >"$MNT/datasets/d/$i"
	[[ $i == a ]] || sync "$MNT/datasets/d/$i" # what was not fsynced may be short after a crash
done
stop
mapfile -t blobs < <(find "$STATE/blobs" -type f -size +250k | sort)
same 2 ${#blobs[@]} blobs
rm "${blobs[0]}" && mkdir "${blobs[0]}"
truncate -s 1000 "${blobs[1]}"
start -o null_backend
expect "Input/output error" cat "$MNT/datasets/d/a"
expect "Input/output error" cat "$MNT/datasets/d/b"
eventually 5 grep -q '^volume damaged since 20.*: [0-9]* reads' "$MNT/status"
rmdir "${blobs[0]}"
rm -r "$MNT/datasets/d"
cp "$DIR/word" "$MNT/datasets/"
stop
