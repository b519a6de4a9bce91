#!/bin/bash
# Directories that are moved into in/ while files in them are open: what is whole is answered at once, what is still written when
# it is closed, and each once.
# alone: what isn't answered within half a second is taken for never
. "$(dirname "$0")/lib.sh"
need python3
start -o null_backend,settle=20ms,settle_batch=100ms
mkdir -p "$MNT/models/m/1" "$MNT/infer/app" "$MNT/datasets/d"
echo '{"submodels":[{"slice":1,"accuracy":0.9,"ms":1,"one_ms":1}],"classes":10}' >"$MNT/models/m/1/model.json"
: >"$MNT/models/m/1/weights.safetensors"
echo '{"model":"m","version":1}' >"$MNT/infer/app/spec.json"
eventually 10 grep -q running "$MNT/infer/app/state"
python3 - "$MNT" <<'P'
import os, sys, time
mnt = sys.argv[1]
app = mnt + "/infer/app"
def eventually(path):
    end = time.monotonic() + 10
    while not os.path.exists(path):
        assert time.monotonic() < end, path + " does not come"
        time.sleep(0.01)
# renamed within in/, and from elsewhere; a file in it, and one further down
for name, place in (("b", app + "/in/.b"), ("c", mnt + "/datasets/d/c")):
    os.makedirs(place + "/sub")
    for f in ("whole", "sub/whole"):
        with open(f"{place}/{f}", "w") as file:
            file.write("1")
    written = [open(f"{place}/{f}", "w") for f in ("open", "sub/open")]
    for f in written:
        f.write("1"); f.flush()
    idle = open(place + "/whole", "r+")        # open for writing, but nothing is written: whole
    os.rename(place, f"{app}/in/{name}")
    for f in ("whole", "sub/whole"):
        eventually(f"{app}/out/{name}/{f}.json")
    for f in written:
        f.write("2"); f.flush()
    time.sleep(0.5)
    for f in ("open", "sub/open"):
        assert not os.path.exists(f"{app}/out/{name}/{f}.json"), f"{name}/{f} is answered early"
    for f in written:
        f.close()
    for f in ("open", "sub/open"):
        eventually(f"{app}/out/{name}/{f}.json")
    idle.close()
P
# As often as there are files, all in all.
instances() # EVENT
{
	sed -n "s/.*\"event\":\"$1\".*\"count\":\([0-9]*\)}$/\1/p" "$MNT/events" | python3 -c "import sys; print(sum(map(int, sys.stdin)))"
}
sleep 0.5
same 8 "$(instances submitted)" "instances that were submitted"
same 8 "$(instances finished)" "instances that were answered"
stop
"$INFERFS" fsck "$STATE"
