#!/bin/bash
# Programs that wait for files by inotify (our own, inotifywait, Python's watchdog, watchman, Node's chokidar: those that are
# there) see each result once, whole at that moment, and each deletion by a user once.
. "$(dirname "$0")/lib.sh"
need python3 inotifywait
watchers_py=$(dirname "$0")/../tools/watchers.py
files=300
start -o null_backend
mkdir -p "$MNT/models/m/1" "$MNT/infer/app"
echo '{"submodels":[{"slice":1,"accuracy":0.9,"ms":1,"one_ms":1}],"classes":10}' >"$MNT/models/m/1/model.json"
: >"$MNT/models/m/1/weights.safetensors"
echo '{"model":"m","version":1}' >"$MNT/infer/app/spec.json"
eventually 10 grep -q running "$MNT/infer/app/state"
O=$MNT/infer/app/out
mkdir "$O/b1" "$O/b2" # before anybody watches: a directory's first files may be there before a watcher is

pids=()
kinds=()
end_watchers()
{
	local status=$?
	set +e
	trap - ERR
	((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null
	wait "${pids[@]}" 2>/dev/null
	pids=()
	return $status
}
trap 'end_watchers; finish' EXIT

# watcher KIND COMMAND…
watcher()
{
	kinds+=("$1")
	"${@:2}" <&0 >"$DIR/$1" 2>"$DIR/$1.err" &
	pids+=($!)
}
mkfifo "$DIR/watch.pipe" "$DIR/inotifywait.pipe"
"$TOOLS/watch" "$O" >"$DIR/watch.pipe" &
pids+=($!)
watcher watch python3 "$watchers_py" lines "$O" <"$DIR/watch.pipe"
inotifywait -q -m -r -e moved_to,create,delete --format '%e %w%f' "$O" >"$DIR/inotifywait.pipe" &
pids+=($!)
watcher inotifywait python3 "$watchers_py" lines "$O" <"$DIR/inotifywait.pipe"
for python in python3 /usr/bin/python3; do
	if $python -c 'import watchdog' 2>/dev/null; then
		watcher watchdog $python "$watchers_py" watchdog "$O"
		break
	fi
done
if command -v watchman >/dev/null; then
	export WATCHMAN_SOCK=$DIR/watchman.sock
	HOME=$DIR watchman --foreground --sockname="$WATCHMAN_SOCK" --logfile="$DIR/watchman.log" \
		--pidfile="$DIR/watchman.pid" --statefile="$DIR/watchman.state" >/dev/null 2>&1 &
	pids+=($!)
	watcher watchman python3 "$watchers_py" watchman "$O"
fi
if command -v node >/dev/null && NODE_PATH=/usr/share/nodejs node -e 'require("chokidar")' 2>/dev/null; then
	NODE_PATH=/usr/share/nodejs watcher chokidar node -e '
		const fs = require("fs");
		require("chokidar").watch(process.argv[1], {ignoreInitial: true})
			.on("add", path => {
				let good = "ok";
				try {
					const text = fs.readFileSync(path, "utf8");
					if (!text.endsWith("\n")) good = "BAD";
					if (path.endsWith(".json")) JSON.parse(text);
				} catch (e) { good = "BAD"; }
				console.log("NEW", path, good);
			})
			.on("unlink", path => console.log("GONE", path))
			.on("ready", () => console.log("ready"));' "$O"
fi
echo "watching: ${kinds[*]}"
for kind in "${kinds[@]}"; do
	[[ $kind == inotifywait ]] || eventually 10 grep -q ready "$DIR/$kind"
done
sleep 0.5 # inotifywait -q says nothing when it begins

mkdir "$DIR/batch"
for ((i = 1; i <= files; i++)); do echo "$i" >"$DIR/batch/$i.png"; done
for b in b1 b2; do
	cp -r "$DIR/batch" "$MNT/infer/app/in/.$b"
	mv "$MNT/infer/app/in/.$b" "$MNT/infer/app/in/$b"
done
for b in b1 b2; do
	"$INFERFS" wait "$O/$b/task.json" --timeout 20s
	for ((i = 1; i <= files; i++)); do echo "$O/$b/$i.png.json"; done
	echo "$O/$b/results.csv"
	echo "$O/$b/task.json"
done | sort >"$DIR/wanted"

said() { (($(grep -c "^$2 " "$DIR/$1") >= $3)); }
# all_said NEW|GONE: each watcher told of what is in `wanted`, of each once and of nothing else
all_said()
{
	local kind
	for kind in "${kinds[@]}"; do
		eventually 10 said "$kind" "$1" "$(wc -l <"$DIR/wanted")"
		[[ $1 != NEW ]] || same "" "$(grep -m 3 BAD "$DIR/$kind" || true)" "$kind: what was not whole"
		grep "^$1 " "$DIR/$kind" | cut -d' ' -f2 | sort | diff "$DIR/wanted" - >"$DIR/diff" ||
			fail "$kind, $1 (< missed, > again or more): $(head -n 5 "$DIR/diff")"
	done
}
all_said NEW

rm "$O"/b1/1*.json
rm -r "$O/b2"
grep -E '/b1/1[^/]*\.json$|/b2/' "$DIR/wanted" >"$DIR/deleted"
mv "$DIR/deleted" "$DIR/wanted"
all_said GONE
end_watchers
trap 'end_watchers; finish' EXIT
stop
