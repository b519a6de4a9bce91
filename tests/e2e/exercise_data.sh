#!/bin/bash
# Contents of files against a model in memory (tests/tools/exercise_data.c), and again after a restart.
#	exercise_data.sh [OPERATIONS [SEED]]
. "$(dirname "$0")/lib.sh"
start
D=$MNT/datasets/d
mkdir "$D"
"$TOOLS/exercise_data" "$D" "${1:-20000}" ${2:+"$2"}
sums=$(cd "$D" && sha256sum data*)
stop
"$INFERFS" fsck "$STATE"
start
same "$sums" "$(cd "$D" && sha256sum data*)" "contents after a restart"
stop
