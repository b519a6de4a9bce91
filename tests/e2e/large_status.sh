#!/bin/bash
# Status files that are too large to lie within the database (schedule.csv of 1,500 tasks) are whole at every moment, renewed while answers go
# out, and gone with their endpoint; neither a removal nor a kill leaves a file in the state directory.
. "$(dirname "$0")/lib.sh"
need python3
start -o null_backend,settle=0
mkdir -p "$MNT/models/m/1" "$MNT/infer/app"
echo '{"classes":10,"submodels":[{"slice":1,"accuracy":0.9,"ms":0.05}]}' >"$MNT/models/m/1/model.json"
: >"$MNT/models/m/1/weights.safetensors"
A=$MNT/infer/app
spec() # ENDPOINT
{
	mkdir -p "$1"
	echo '{"model":"m","batch":8}' >"$1/spec.json"
	"$INFERFS" wait "$1/slices.csv" --timeout 30s
}

# Each file is a task; meanwhile the schedule is read again and again.
tasks() # ENDPOINT FIRST LAST
{
	python3 - "$@" <<'P'
import csv, io, os, sys, time
app, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rows = 0
def is_there(path):
    os.stat(app) # no mount, no endpoint: that ends it
    try:
        return os.stat(path) is not None
    except FileNotFoundError:
        return False
for i in range(first, last):
    name = f"a-rather-long-name-{i:05d}"
    with open(f"{app}/in/{name}", "w") as f:
        f.write("3")
    end = time.monotonic() + 10
    while not is_there(f"{app}/out/{name}.json"):
        assert time.monotonic() < end, name
        time.sleep(0.0005)
    if i % 20 == 0 and os.path.exists(f"{app}/schedule.csv"):
        with open(f"{app}/schedule.csv") as f:
            size, text = os.fstat(f.fileno()).st_size, f.read()
        assert size >= rows and text.endswith("\n"), (size, text[-100:])
        table = list(csv.reader(io.StringIO(text)))
        assert all(len(row) == len(table[0]) for row in table), table[-1]
        ids = [row[0] for row in table[1:]]
        assert ids == sorted(ids) and len(set(ids)) == len(ids)
        rows = max(rows, size // 2)
P
}

rows() # COUNT, in what is larger than 64 KiB
{
	[[ $(wc -l <"$A/schedule.csv") == $(($1 + 1)) ]] && (($(stat -c %s "$A/schedule.csv") > 65536))
}
spec "$A"
tasks "$A" 0 1500
eventually 5 rows 1500

echo "kill -9 while it is renewed"
tasks "$A" 1500 9000 &
writer=$!
sleep 0.3
kill_daemon
wait "$writer" && fail "it was killed too late"
"$INFERFS" fsck "$STATE"
start -o null_backend,settle=0
tasks "$A" 9000 9020 # goes on with what lay there: the last rows before the kill may be missing
more_rows()
{
	(($(wc -l <"$A/schedule.csv") > 1520)) && (($(stat -c %s "$A/schedule.csv") > 65536))
}
eventually 5 more_rows

echo "and removal"
tasks "$A" 9100 12000 &
writer=$!
sleep 0.05
eventually 10 rm -rf "$A" # what comes meanwhile keeps a directory from going
wait "$writer" && fail "it was removed too late"
spec "$A"
sleep 0.3 # what was on its way would come now
[[ ! -e $A/schedule.csv ]] || (($(stat -c %s "$A/schedule.csv") < 1000)) || fail "of the endpoint that is gone"
stop
"$INFERFS" fsck "$STATE"
(($(find "$STATE/blobs" -type f | wc -l) <= 1)) || fail "more than what /events lies in"
