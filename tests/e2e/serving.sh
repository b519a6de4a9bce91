#!/bin/bash
# The serving rules, one by one, with the tools that users use and real workers: when a batch is submitted, where its deadline
# comes from, what is an instance, and that each is answered exactly once.
# alone: what is submitted when hangs on how long it was quiet
. "$(dirname "$0")/lib.sh"
need setfattr getfattr python3 rsync inotifywait
fashion=/usr/share/datasets/fashion-mnist
[[ -d $fashion ]] || skip "no dataset-fashion-mnist here"
"$IDX2PNG" $fashion/train-images-idx3-ubyte.gz $fashion/train-labels-idx1-ubyte.gz "$DIR/train" 0 200 --folders
"$IDX2PNG" $fashion/t10k-images-idx3-ubyte.gz $fashion/t10k-labels-idx1-ubyte.gz "$DIR/test" 0 40
cp -r "$DIR/test" "$DIR/few"
(cd "$DIR/few" && ls | tail -n +6 | xargs rm)
one=$(find "$DIR/test" -name '00000-*')
start
cp -r "$DIR/train" "$MNT/datasets/small"
mkdir "$MNT/jobs/small" "$MNT/infer/app"
echo '{"dataset":"small","net":{"arch":"mlp"},"epochs":1,"batch":32}' >"$MNT/jobs/small/spec.json"
"$INFERFS" wait "$MNT/models/small/latest" --timeout 60s || fail "$(cat "$MNT/jobs/small/error")"
echo '{"model":"small"}' >"$MNT/infer/app/spec.json"
"$INFERFS" wait "$MNT/infer/app/slices.csv" --timeout 30s
cd "$MNT/infer/app"
inotifywait -q -m -r -e moved_to --format '%w%f' out >"$DIR/moved" 2>"$DIR/inotify" &
watcher=$!

# value FILE KEY: of an answer
value()
{
	python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$@"
}

# done_with BATCH N: task.json is there, and N instances are answered, each of them once in results.csv
done_with()
{
	"$INFERFS" wait "out/$1/task.json" --timeout 10s || fail "out/$1/task.json does not come: $(ls -R "in/$1")"
	python3 - "out/$1" "$2" <<'P'
import csv, json, os, sys
out, n = sys.argv[1], int(sys.argv[2])
answers = [os.path.join(d, f) for d, _, names in os.walk(out) for f in names if f.endswith(".json") and f != "task.json"]
rows = [r["file"] for r in csv.DictReader(open(out + "/results.csv", newline=""))]
assert len(answers) == n, ("answers", len(answers), n)
assert len(rows) == n and len(set(rows)) == n, ("rows", len(rows), n)
for a in answers:
    j = json.load(open(a))
    assert j["status"] in ("ok", "late", "dropped", "failed"), j
    assert os.path.normpath(out + "/" + j["file"].split("/", 1)[1] + ".json") == os.path.normpath(a), (a, j["file"])
json.load(open(out + "/task.json"))
P
}

# never FILE…: none of them is there, and a while later still is not
never()
{
	sleep 0.3
	for f; do
		[[ ! -e $f ]] || fail "$f should not be there"
	done
}

tasks() # that ended so far
{
	echo $(($(wc -l <schedule.csv) - 1))
}

deadline_of() # ANSWER: in whole milliseconds
{
	python3 -c 'import json, sys; d = json.load(open(sys.argv[1]))["deadline_ms"]; print("none" if d is None else int(d))' "$1"
}

echo "cp, then setfattr"
mkdir in/b1
cp "$DIR"/few/*.png in/b1/
setfattr -n user.deadline -v 30s in/b1
done_with b1 5
for f in out/b1/*.png.json; do same 30000 "$(deadline_of "$f")"; done
same ok "$(getfattr --only-values -n user.state "in/b1/$(basename "$one")")"
same "infer/app/out/b1/$(basename "$one").json" "$(getfattr --only-values -n user.result "in/b1/$(basename "$one")")"
same 5 "$(getfattr --only-values -n user.admitted in/b1)" "what was expected in time"
same 5 "$(python3 -c 'import json; print(json.load(open("out/b1/task.json"))["admitted"])')" "the same in task.json"
setfattr -n user.admitted -v 99 in/b1 # answers success, and does nothing, as user.state of an instance
same 5 "$(getfattr --only-values -n user.admitted in/b1)"

echo "setfattr -x: the spec's deadline, here none"
setfattr -x user.deadline in/b1
cp "$one" in/b1/again.png
eventually 10 test -e out/b1/again.png.json
same none "$(deadline_of out/b1/again.png.json)"

echo "quiet for a second; nested directories; files that are added; an answered one that is overwritten"
mkdir -p in/b2/x/y
cp "$one" in/b2/a.png
cp "$one" in/b2/x/b.png
cp "$one" in/b2/x/y/c.png
sleep 0.5
[[ ! -e out/b2 ]] || fail "b2 was submitted after half a second"
done_with b2 3
cp "$one" in/b2/x/d.png
sleep 1.2
done_with b2 4
before=$(value out/b2/a.png.json task)
cat "$(find "$DIR/test" -name '00001-*')" >in/b2/a.png
sleep 1.2
done_with b2 4
[[ $(value out/b2/a.png.json task) != "$before" ]] || fail "the new content has no new answer"
same "$before" "$(value out/b2/x/b.png.json task)" "task of an untouched one"

echo "cp --preserve=xattr"
cp "$one" "$DIR/own.png"
setfattr -n user.deadline -v 7s "$DIR/own.png"
cp --preserve=xattr "$DIR/own.png" in/own.png
eventually 5 test -e out/own.png.json
same 7000 "$(deadline_of out/own.png.json)"

echo "rsync -aX, twice"
cp -r "$DIR/few" "$DIR/b3"
setfattr -n user.deadline -v 20s "$DIR/b3"
setfattr -n user.deadline -v 9s "$DIR/b3/$(basename "$one")"
rsync -aX "$DIR/b3" in/
done_with b3 5
same 9000 "$(deadline_of "out/b3/$(basename "$one").json")"
same 20000 "$(deadline_of "$(ls out/b3/00001-*.json)")"
ls -lR --time-style=full-iso out/b3 >"$DIR/b3.first"
sleep 0.5 # schedule.csv follows, five times a second at most
n=$(tasks)
rsync -aX "$DIR/b3" in/
sleep 1.3
ls -lR --time-style=full-iso out/b3 >"$DIR/b3.second"
cmp "$DIR/b3.first" "$DIR/b3.second"
same "$n" "$(tasks)" "tasks after a second rsync"

echo "mv of a directory from datasets/"
cp -r "$DIR/few" "$MNT/datasets/b4"
echo 11s >"$MNT/datasets/b4/.deadline"
eventually 5 test -e "$MNT/datasets/b4/dataset.json"
rm "$MNT/datasets/b4/dataset.json"
mv "$MNT/datasets/b4" in/b4
done_with b4 5
same 11000 "$(deadline_of "$(ls out/b4/00001-*.json)")" "deadline of a .deadline that was moved in"

echo ".deadline; absolute; in/; spec.json"
mkdir in/b5
cp "$DIR"/few/*.png in/b5/
echo 5s >in/b5/.deadline
done_with b5 5
same 5000 "$(deadline_of "$(ls out/b5/00001-*.json)")"
same 5s "$(getfattr --only-values -n user.deadline in/b5)"
mkdir in/b6
cp "$one" in/b6/x.png
setfattr -n user.deadline -v "@$(($(date +%s) + 100))" in/b6
done_with b6 1
d=$(deadline_of out/b6/x.png.json)
((d > 90000 && d <= 100000)) || fail "absolute deadline: $d"
setfattr -n user.deadline -v 40s in
cp "$one" in/l1.png
eventually 5 test -e out/l1.png.json
same 40000 "$(deadline_of out/l1.png.json)"
setfattr -x user.deadline in
echo '{"model":"small","deadline":"50s"}' >spec.json
cp "$one" in/l2.png
eventually 5 test -e out/l2.png.json
same 50000 "$(deadline_of out/l2.png.json)"
echo '{"model":"small"}' >spec.json
same running "$(cat state)"

echo "deadlines that are none"
for bad in "" 0 -1 5x abc 0ms @ "5 s" nan 1e3 99999999999; do
	expect "Invalid argument" setfattr -n user.deadline -v "$bad" in/b1
	expect "Invalid argument" setfattr -n user.deadline -v "$bad" in/own.png
	[[ -z $bad ]] || expect "Invalid argument" bash -c 'echo "$1" >in/b1/.deadline' - "$bad"
done
expect "No such attribute" getfattr -n user.deadline in/b1

echo "a slow writer"
mkdir in/b7
cp "$DIR"/few/*.png in/b7/
exec 5>in/b7/slow.png
cat "$one" >&5
sleep 2
[[ ! -e out/b7/task.json ]] || fail "the batch was cut"
exec 5>&-
done_with b7 6
same 1 "$(cat out/b7/*.png.json | grep '"task"' | sort -u | wc -l)" "tasks of b7"

echo "names that wait"
mkdir in/b8
for name in .h.png x.png~ x.tmp x.part; do cp "$one" "in/b8/$name"; done
cp "$one" in/.loose.png
sleep 1.2
never out/b8 out/.loose.png.json
for name in .h.png x.png~ x.tmp x.part; do
	new=${name#.}
	mv "in/b8/$name" "in/b8/${new%%.*}-${#name}-${name: -1}.png"
done
mv in/.loose.png in/loose.png
done_with b8 4
eventually 5 test -e out/loose.png.json

echo "loose files that arrive together"
eventually 5 test "$(tasks)" -gt 0
sleep 0.5
n=$(tasks)
cp "$DIR"/few/*.png in/
for f in "$DIR"/few/*.png; do eventually 5 test -e "out/$(basename "$f").json"; done
sleep 0.5
same $((n + 1)) "$(tasks)" "tasks"

echo "renamed into place by a program that has just closed it"
mkdir in/b9
python3 - "$one" <<'P'
import os, sys
data = open(sys.argv[1], "rb").read()
for i in range(300):
    with open("in/b9/.t%d" % i, "wb") as f:
        f.write(data)
    os.rename("in/b9/.t%d" % i, "in/b9/%d.png" % i)
P
setfattr -n user.deadline -v 60s in/b9
done_with b9 300
for i in 0 17 299; do same ok "$(getfattr --only-values -n user.state in/b9/$i.png)"; done

echo "a client that syncs and keeps its handle, as an NFS server does"
exec 5>in/synced.png
cat "$one" >&5
sync in/synced.png
eventually 5 test -e out/synced.png.json
same ok "$(value out/synced.png.json status)"
task=$(value out/synced.png.json task)
exec 5>&-
sleep 0.5
same "$task" "$(value out/synced.png.json task)" "task after the close"
exec 5>>in/synced.png
sync in/synced.png
echo more >&5
exec 5>&-
sleep 0.5
[[ $(value out/synced.png.json task) != "$task" ]] || fail "the changed file has no new answer"

echo "what is no image"
mkdir in/c1
head -c 100 "$one" >in/c1/cut.png
: >in/c1/empty.png
head -c 20000000 /dev/zero | tr "\0" "x" >in/c1/text.png
cp "$one" in/c1/good.png
setfattr -n user.deadline -v 60s in/c1
done_with c1 4
for f in cut empty text; do
	same failed "$(value "out/c1/$f.png.json" status)"
	[[ -n $(value "out/c1/$f.png.json" error) ]] || fail "no reason"
done
same ok "$(value out/c1/good.png.json status)"

echo "names"
mkdir in/c2
long=$(printf 'n%.0s' {1..251}).png
wide=$(python3 -c 'print("ü" * 125 + ".png")')
for name in "a b.png" "grüße.png" $'new\nline.png' "quo\"te's.png" 'back\slash.png' '{"x":1}.png' '-rf.png' "a,b.png" "$long" "$wide" $'\xff\xfe.png'; do
	cp -- "$one" "in/c2/$name"
done
setfattr -n user.deadline -v 60s in/c2
"$INFERFS" wait out/c2/task.json --timeout 10s
python3 - <<'P'
import csv, json, os
names = os.listdir(b"in/c2")
assert len(names) == 11
for n in names:
    result = os.getxattr(b"in/c2/" + n, "user.result")
    j = json.load(open(b"../../" + result, encoding="utf-8"))
    assert j["status"] == "ok", j
    if len(n) < 200:
        assert result == b"infer/app/out/c2/" + n + b".json", result
rows = list(csv.DictReader(open("out/c2/results.csv", newline="", encoding="utf-8")))
assert sorted(r["file"] for r in rows) == sorted("c2/" + n.decode("utf-8", "replace") for n in names), rows
P

echo "links"
mkdir in/c3
cp "$one" in/c3/file.png
ln in/c3/file.png in/c3/hard.png
ln -s file.png in/c3/soft.png
ln -s /etc/passwd in/c3/away.png
mkfifo in/c3/pipe.png
setfattr -n user.deadline -v 60s in/c3
done_with c3 5
for f in soft away pipe; do
	grep -q '"status":.*"failed"' out/c3/$f.png.json || fail "$f: $(cat out/c3/$f.png.json)"
	grep -q "regular file.*cp -L" out/c3/$f.png.json || fail "$f: $(cat out/c3/$f.png.json)"
done
ln -s c3/file.png in/soft-loose.png
"$INFERFS" wait out/soft-loose.png.json --timeout 10s
grep -q failed out/soft-loose.png.json
mkdir "$MNT/datasets/links"
ln -s x "$MNT/datasets/links/a.png"
mv "$MNT/datasets/links" in/links
"$INFERFS" wait out/links/task.json --timeout 10s
grep -q failed out/links/a.png.json

echo "whose answer it is"
if [[ $(id -u) -eq 0 ]]; then
	mkdir in/c4
	cp "$one" in/c4/private.png
	chown 12345:54321 in/c4/private.png
	chmod 600 in/c4/private.png
	setfattr -n user.deadline -v 60s in/c4
	done_with c4 1
	same "12345 54321 400" "$(stat -c '%u %g %a' out/c4/private.png.json)"
	same "444" "$(stat -c '%a' out/c3/file.png.json)"
fi

echo "what inferfs writes"
sleep 1.2
python3 - "$MNT" <<'P'
import csv, json, os, re, sys
from xml.etree import ElementTree
root = sys.argv[1]
def text(p):
    p = os.path.join(root, p)
    size = os.stat(p).st_size
    s = open(p, "rb").read()
    assert len(s) == size and size, (p, size, len(s))
    assert s.endswith(b"\n") and oct(os.stat(p).st_mode)[-3:] == "444", p
    return s.decode()
for p in ("README", "status", "infer/app/state", "jobs/small/progress", "jobs/small/log"):
    text(p)
stats = json.loads(text("infer/app/stats.json"))
assert stats["ok"] > 300 and stats["failed"] == 8 and stats["queued"] == 0, stats
rows = list(csv.DictReader(text("infer/app/schedule.csv").splitlines()))
assert rows and all(None not in r and None not in r.values() for r in rows), rows[:1]
assert len(text("events").encode()) < 1 << 20
for line in text("events").splitlines():
    json.loads(line)
for p in ("infer/app/timeline.svg", "jobs/small/curves.svg"):
    assert ElementTree.fromstring(text(p)).tag == "{http://www.w3.org/2000/svg}svg", p
assert "<title>slice " in text("infer/app/timeline.svg")
sample = re.compile(r'^[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_][a-zA-Z0-9_]*="(\\["\\n]|[^"\\\n])*",?)*\})? -?[0-9.e+-]+$')
types, seen = {}, set()
for line in text("metrics").splitlines():
    if line.startswith("# TYPE"):
        name = line.split()[2]
        assert name not in types, line
        types[name] = line.split()[3]
    elif not line.startswith("#"):
        assert sample.match(line), line
        key = line.rsplit(" ", 1)[0]
        assert key not in seen, line
        seen.add(key)
        family = key.split("{")[0]
        if family not in types:  # of a histogram
            family = re.sub("_(bucket|sum|count)$", "", family)
            assert types[family] == "histogram", line
        assert family == name, line  # all of a family stand together
P

echo "tar, cp and rsync of out/"
mkdir "$DIR/copy"
cp -a out "$DIR/copy/cp"
mkdir "$DIR/copy/tar"
tar cf - out | tar xf - -C "$DIR/copy/tar"
rsync -a out/ "$DIR/copy/rsync"
diff -r out "$DIR/copy/cp"
diff -r out "$DIR/copy/tar/out"
diff -r out "$DIR/copy/rsync"

echo "inotify saw each result appear"
kill $watcher
wait $watcher || true
python3 - "$DIR/moved" <<'P'
import collections, os, sys
seen = collections.Counter(open(sys.argv[1], errors="surrogateescape").read().splitlines())
for b, n in (("b5", 5), ("b9", 300)):
    for f in os.listdir("out/" + b):
        if f != "results.csv":
            assert seen["out/%s/%s" % (b, f)] <= 1, (f, seen["out/%s/%s" % (b, f)])
for f in os.listdir("in"):
    if os.path.isfile("in/" + f):
        wanted = 2 if f == "synced.png" else 1 # it was changed after its first answer
        assert seen["out/%s.json" % f] == wanted, (f, seen["out/%s.json" % f])
P
cd /
stop
"$INFERFS" fsck "$STATE"
