#!/bin/bash
# Names against a model, from eight threads (tests/tools/exercise_names.c).
#	exercise_names.sh [OPERATIONS [SEED]]
. "$(dirname "$0")/lib.sh"
start
mkdir "$MNT/datasets/n"
"$TOOLS/exercise_names" "$MNT/datasets/n" "${1:-2000}" ${2:+"$2"}
stop
"$INFERFS" fsck "$STATE"
