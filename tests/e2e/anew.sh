#!/bin/bash
# An endpoint is removed while hundreds of its answers are on their way, and made anew at once: none of them appears in the new one.
. "$(dirname "$0")/lib.sh"
need python3
start -o null_backend,settle=1ms,settle_batch=100ms
mkdir -p "$MNT/models/m/1"
echo '{"submodels":[{"slice":1,"accuracy":0.9,"ms":1,"one_ms":1}],"classes":10}' >"$MNT/models/m/1/model.json"
: >"$MNT/models/m/1/weights.safetensors"
python3 - "$MNT/infer/app" "${1:-6}" <<'P'
import os, sys, time
app = sys.argv[1]
names = ["%d.png" % i for i in range(800)]
def wait(what):
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.001)
def running():
    try:
        return "running" in open(app + "/state").read()
    except OSError:
        return False
for round in range(int(sys.argv[2])):
    os.mkdir(app)
    open(app + "/spec.json", "w").write('{"model":"m","version":1}\n')
    wait(running)
    os.mkdir(app + "/in/.b")
    for n in names:
        open(app + "/in/.b/" + n, "w").write(n)
    os.rename(app + "/in/.b", app + "/in/b")
    wait(lambda: os.path.exists(app + "/out/b"))
    for n in names:
        os.unlink(app + "/in/b/" + n)
    os.rmdir(app + "/in/b")
    os.rmdir(app)
    os.mkdir(app)
    time.sleep(0.2)
    assert sorted(os.listdir(app)) == ["ctl", "in", "out"], os.listdir(app)
    assert os.listdir(app + "/out") == [], os.listdir(app + "/out")
    os.rmdir(app)
P
mkdir "$MNT/infer/app" # what is published for the last one of the name is
echo '{"model":"m","version":1}' >"$MNT/infer/app/spec.json"
eventually 10 grep -q running "$MNT/infer/app/state"
echo x >"$MNT/infer/app/in/x.png"
"$INFERFS" wait "$MNT/infer/app/out/x.png.json" --timeout 10s
stop
"$INFERFS" fsck "$STATE"
