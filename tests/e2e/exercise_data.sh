#!/bin/bash
# Contents of files against a model in memory (tests/tools/exercise_data.c), and again after a restart; with the kernel reading blobs
# itself where it can, and without.
#	exercise_data.sh [OPERATIONS [SEED]]
. "$(dirname "$0")/lib.sh"
D=$MNT/datasets/d
for options in null_backend no_passthrough; do
	start -o $options
	mkdir "$D"
	"$TOOLS/exercise_data" "$D" "${1:-20000}" ${2:+"$2"}
	sums=$(cd "$D" && sha256sum data*)
	stop
	"$INFERFS" fsck "$STATE"
	start -o $options
	same "$sums" "$(cd "$D" && sha256sum data*)" "contents after a restart"
	rm -r "$D"
	stop
done
