#!/bin/bash
# kill -9 of the daemon while its own renames are under way through the mount: it dies, and the same command mounts again.
. "$(dirname "$0")/../e2e/lib.sh"
start -o null_backend
mkdir -p "$MNT/models/m/1" "$MNT/infer/app"
echo '{"submodels":[{"slice":1,"accuracy":0.9,"ms":1,"one_ms":1}],"classes":10}' >"$MNT/models/m/1/model.json"
: >"$MNT/models/m/1/weights.safetensors"
echo '{"model":"m","version":1}' >"$MNT/infer/app/spec.json"
eventually 10 grep -q running "$MNT/infer/app/state"
mkdir "$DIR/batch"
for i in {1..400}; do echo "$i" >"$DIR/batch/$i.png"; done

for round in {1..12}; do
	cp -r "$DIR/batch" "$MNT/infer/app/in/.b$round"
	mv "$MNT/infer/app/in/.b$round" "$MNT/infer/app/in/b$round" # submitted; the answers begin to come
	eventually 10 test -e "$MNT/infer/app/out/b$round"
	sleep "0.0$((RANDOM % 10))"
	pid=$(daemon_pid)
	kill -9 "$pid"
	end=$((SECONDS + 10))
	until gone "$pid"; do
		if ((SECONDS >= end)); then
			umount -f "$MNT" 2>/dev/null || true # so that it can go now
			fail "the daemon hangs in its own mount (round $round)"
		fi
		sleep 0.02
	done
	start -o null_backend
done
for round in {1..12}; do
	"$INFERFS" wait "$MNT/infer/app/out/b$round/task.json" --timeout 60s
	same 400 "$(ls "$MNT/infer/app/out/b$round" | grep -c 'png.json$')" "answers of batch $round"
done
stop
"$INFERFS" fsck "$STATE"
