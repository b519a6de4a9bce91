# Sourced by crash tests, after lib.sh: a tree with an endpoint that computes nothing, a writer, and the check of what it was promised
# (tests/tools/manifest.py).
MANIFEST=$DIR/manifest
MANIFEST_PY=$(dirname "${BASH_SOURCE[0]}")/../tools/manifest.py

manifest_tree()
{
	mkdir -p "$MNT/models/m/1" "$MNT/infer/app" "$MNT/datasets/m"
	echo '{"submodels":[{"slice":1,"accuracy":0.9,"ms":1,"one_ms":1}],"classes":10}' >"$MNT/models/m/1/model.json"
	: >"$MNT/models/m/1/weights.safetensors"
	echo '{"model":"m","version":1,"batch":8}' >"$MNT/infer/app/spec.json"
	eventually 10 grep -q running "$MNT/infer/app/state"
	sync "$MNT/infer/app/spec.json" # power cuts begin here
	: >"$MANIFEST"
}

# ROUND [DISK]: the writer works; returns at a random moment after its first words
manifest_write()
{
	local words

	words=$(stat -c %s "$MANIFEST")
	python3 "$MANIFEST_PY" write "$MNT" "$MANIFEST" "$@" >"$DIR/writer" 2>&1 &
	WRITER=$!
	while [[ $(stat -c %s "$MANIFEST") == "$words" ]]; do
		kill -0 $WRITER 2>/dev/null || fail "the writer ended early: $(cat "$DIR/writer")"
		sleep 0.01
	done
	sleep "0.$((RANDOM % 10))$((RANDOM % 10))"
}

manifest_wait()
{
	wait $WRITER || fail "$(cat "$DIR/writer")"
}

manifest_check() # kill|power
{
	python3 "$MANIFEST_PY" check "$MNT" "$MANIFEST" "$1"
}

manifest_end() # kill|power
{
	python3 "$MANIFEST_PY" end "$MNT" "$MANIFEST" "$1"
}
