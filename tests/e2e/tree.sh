#!/bin/bash
# The rules of the tree: what is there, what may be made, moved and removed where, and the errno at the call.
. "$(dirname "$0")/lib.sh"
need setfattr getfattr rsync python3
start
cd "$MNT"

echo "the top"
for f in README datasets models jobs infer; do [[ -e $f ]] || fail "no $f"; done
grep -q user.deadline README
same "$(stat -c %s README)" "$(cat README | wc -c)"
for d in datasets models jobs infer; do
	expect "Operation not permitted" rmdir $d
	expect "Operation not permitted" mv $d other
done
expect "Operation not permitted" rm -f README
expect "Operation not permitted" mkdir more
expect "Operation not permitted" touch file
expect "Operation not permitted" touch jobs/file
expect "Operation not permitted" touch infer/file
expect "Operation not permitted" touch datasets/.inferfs-pub.1
[[ ! -e datasets/.inferfs-pub.1 ]] || fail "hidden name"

echo "datasets and models are free"
mkdir -p datasets/a/x models/m/1
echo 1 >datasets/a/x/f
echo '{}' >models/m/1/model.json
mv datasets/a datasets/b
mv models/m models/n
expect "Directory not empty" rmdir datasets/b
rm -r datasets/b models/n

echo "jobs and endpoints"
mkdir infer/app jobs/job
same "ctl in out" "$(ls infer/app | tr '\n' ' ' | sed 's/ $//')"
same ctl "$(ls jobs/job)"
same 644 "$(stat -c %a infer/app/ctl)"
same 4 "$(stat -c %h infer/app)"
for d in infer/app jobs/job; do
	expect "Operation not permitted" mv $d $d-other
	expect "Operation not permitted" mv $d datasets/
done
mkdir datasets/d
expect "Operation not permitted" mv datasets/d infer/d
expect "Operation not permitted" mv infer/app/in infer/app/in2
expect "File exists" mkdir infer/app

echo "ctl"
expect "Invalid argument" bash -c 'echo dance >infer/app/ctl'
same 0 "$(stat -c %s infer/app/ctl)"
echo start >infer/app/ctl
same start "$(cat infer/app/ctl)"
same 6 "$(stat -c %s infer/app/ctl)"
echo stop >>infer/app/ctl
same stop "$(cat infer/app/ctl)" "the last word"
same 5 "$(stat -c %s infer/app/ctl)"
echo pause >jobs/job/ctl
expect "Invalid argument" bash -c 'echo start >jobs/job/ctl'

echo "spec.json"
expect "Invalid argument" bash -c 'echo "{\"model\": oops}" >infer/app/spec.json'
eventually 5 test -s infer/app/error
same 0 "$(stat -c %s infer/app/spec.json)"
expect "Invalid argument" bash -c 'echo "{}" >infer/app/spec.json'
echo '{"model":"a-long-name"}' >infer/app/spec.json
expect "Invalid argument" bash -c 'echo "{\"model\":7}" >infer/app/spec.json'
same '{"model":"a-long-name"}' "$(cat infer/app/spec.json)" "the spec after one that was refused"
python3 - <<'P'
import os
f = os.open("infer/app/spec.json", os.O_WRONLY | os.O_TRUNC)
for text in (b'{"model":7}', b'{"model":8}'):
    try:
        os.write(f, text)
        raise SystemExit("a wrong spec was taken")
    except OSError as e:
        pass
os.write(f, b'{"model":"m"}')
os.close(f)
P
same '{"model":"m"}' "$(cat infer/app/spec.json)" "the spec that was written at the third try"
: >infer/app/spec.json
same 0 "$(stat -c %s infer/app/spec.json)"
printf '{"model":' >datasets/d/cut
expect "Invalid argument" python3 -c 'import os; os.rename("datasets/d/cut", "infer/app/spec.json")'
python3 - <<'PY'
import os, errno
f = os.open("jobs/job/spec.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
os.write(f, b'{"dataset":')
try:
    os.close(f)
    raise SystemExit("a spec that is cut short must fail at close")
except OSError as e:
    assert e.errno == errno.EINVAL, e
f = os.open("jobs/job/spec.json", os.O_WRONLY | os.O_TRUNC)
os.write(f, b'{"data')
os.write(f, b'set":"d"}')
os.close(f)
PY
same '{"dataset":"d"}' "$(cat jobs/job/spec.json)"
rm jobs/job/spec.json
echo '{"dataset":"d"}' >jobs/job/spec.json
# As editors do: a temporary name, then rename over the old one.
echo '{"model":"m"}' >infer/app/spec.json
echo '{"model":"n"}' >infer/app/.spec.json.swp
mv infer/app/.spec.json.swp infer/app/spec.json
same '{"model":"n"}' "$(cat infer/app/spec.json)"
echo 'nonsense' >infer/app/new
expect "Invalid argument" python3 -c 'import os; os.rename("infer/app/new", "infer/app/spec.json")'
same '{"model":"n"}' "$(cat infer/app/spec.json)"
rm infer/app/new
truncate -s 0 infer/app/spec.json
python3 -c 'import sys; sys.stdout.write("{\"model\":\"" + "x" * 3000000)' >"$DIR/huge"
expect "error writing" dd if="$DIR/huge" of=infer/app/spec.json bs=1M status=none
rm -f infer/app/spec.json

echo "deadlines"
mkdir infer/app/in/b
echo i >infer/app/in/b/x.png
for f in infer/app/in infer/app/in/b infer/app/in/b/x.png; do
	setfattr -n user.deadline -v 5s $f
	same 5s "$(getfattr --only-values -n user.deadline $f)"
	expect "Invalid argument" setfattr -n user.deadline -v soon $f
	expect "Invalid argument" setfattr -n user.deadline -v 0 $f
	same 5s "$(getfattr --only-values -n user.deadline $f)"
	setfattr -x user.deadline $f
done
setfattr -n user.deadline -v whatever datasets/d # elsewhere it means nothing
echo 800ms >infer/app/in/b/.deadline
same 800ms "$(getfattr --only-values -n user.deadline infer/app/in/b)"
expect "Invalid argument" bash -c 'echo never >infer/app/in/.deadline'
rm infer/app/in/b/.deadline
expect "No such attribute" getfattr -n user.deadline infer/app/in/b
setfattr -n user.state -v mine infer/app/in/b/x.png
expect "No such attribute" getfattr --only-values -n user.state.no infer/app/in/b/x.png
[[ $(getfattr --only-values -n user.state infer/app/in/b/x.png 2>/dev/null) != mine ]] || fail "user.state"

echo "batches move in and out; rsync and cp -a into in/"
mkdir -p datasets/d/batch/sub
echo 1 >datasets/d/batch/1.png
echo 2 >datasets/d/batch/sub/2.png
mv datasets/d/batch infer/app/in/
expect "Invalid argument" setfattr -n user.deadline -v soon infer/app/in/batch/sub/2.png # its kind changed
expect "Invalid argument" setfattr -n user.deadline -v soon infer/app/in/batch
mv infer/app/in/batch datasets/d/
setfattr -n user.deadline -v soon datasets/d/batch/sub/2.png # and back
rsync -aX datasets/d/batch infer/app/in/ && fail "a deadline that does not parse passed rsync"
setfattr -x user.deadline datasets/d/batch/sub/2.png
setfattr -n user.state -v ok datasets/d/batch/1.png
rsync -aX datasets/d/batch infer/app/in/
cp -a datasets/d/batch infer/app/in/batch2
cp -a infer/app/in/batch2 "$DIR/elsewhere"
same 2 "$(find infer/app/in/batch2 -type f | wc -l)"
ln datasets/d/batch/1.png infer/app/in/linked.png

echo "removal"
expect "Directory not empty" rmdir infer/app
rm -r infer/app/in/*
echo mine >infer/app/notes
expect "Directory not empty" rmdir infer/app
[[ -e infer/app/out && -e infer/app/ctl ]] || fail "a refused rmdir removed something"
rm infer/app/notes
rmdir infer/app
rmdir jobs/job
mkdir infer/app
echo i >infer/app/in/i.png
rm -r infer/app
[[ ! -e infer/app ]] || fail "rm -r"
mkdir infer/app && rmdir infer/app
mkdir -p infer/app/in/b
echo '{"model":"none"}' >infer/app/spec.json
for i in {1..300}; do echo "$i" >infer/app/in/b/$i.png; done
setfattr -n user.deadline -v 100ms infer/app/in/b
rm -r infer/app # while answers come
[[ ! -e infer/app ]] || fail "rm -r under answers"

echo "the command's own errors"
expect "already mounted" "$INFERFS" mount "$DIR/other" "$MNT"
mkdir "$DIR/mnt2"
expect "" "$INFERFS" mount "$STATE" "$DIR/mnt2" # in use
expect "Not a directory" "$INFERFS" mount "$DIR/other" "$MNT/README"
expect "No such file" "$INFERFS" mount "$DIR/other" "$DIR/nothing"
expect "see inferfs mount --help" "$INFERFS" mount "$DIR/other" "$DIR/mnt2" -o nonsense
expect "not a duration" "$INFERFS" mount "$DIR/other" "$DIR/mnt2" -o settle=soon
expect "from 4 to 256" "$INFERFS" mount "$DIR/other" "$DIR/mnt2" -o threads=1
expect "no inferfs is mounted there" "$INFERFS" umount "$DIR/mnt2"
for c in mount umount fsck wait; do [[ $("$INFERFS" $c --help) == *usage:* ]] || fail "$c --help"; done

cd /
stop
same "" "$(ls "$MNT")"
"$INFERFS" fsck "$STATE"
