#!/usr/bin/env bash
# The long training: a sliced ResNet on all of Fashion-MNIST, through the mount, hours on 2 cores. Prints a line an epoch, then each
# slice's accuracy on the 10,000 test images. An interrupted run goes on from its last epoch when the script is started again.
#
#	examples/fashion-full.sh [SEED …]		seeds to train with, 1 if none is given; of several the means are shown, too
#	examples/fashion-full.sh --alone [SEED …]	nets of each slice's width for themselves by the same recipe, to compare with
#	EPOCHS=60 examples/fashion-full.sh …		instead of 40
#
# Everything it makes lies in build/fashion-full: state/ is what the filesystem keeps, ml/ is the mount, seed-N/ copies of the results.
set -euo pipefail
cd "$(dirname "$0")/.."

data=/usr/share/datasets/fashion-mnist
dir=$PWD/build/fashion-full
ml=$dir/ml
inferfs=$PWD/build/release/inferfs
width=32
alone=
if [ "${1:-}" = --alone ]; then
	alone=yes
	shift
fi
[ $# -gt 0 ] || set -- 1

examples/install-packages.sh
cmake -S . -B build/release -G Ninja -DBUILD_TESTING=OFF >/dev/null
ninja -C build/release --quiet
mkdir -p "$dir/state" "$ml"
mountpoint -q "$ml" || "$inferfs" mount "$dir/state" "$ml"
mkdir -p "$ml/datasets/fashion"
[ -e "$ml/datasets/fashion/train-images-idx3-ubyte.gz" ] || cp "$data"/*.gz "$ml/datasets/fashion/"
"$inferfs" wait "$ml/datasets/fashion/dataset.json" --timeout 2m

# Trains the model NAME, or goes on with it.
train() { # NAME WIDTH SLICES SEED
	local job=$ml/jobs/$1 start=$SECONDS shown=0 state lines
	mkdir -p "$job"
	[ -e "$job/spec.json" ] || cat >"$job/spec.json" <<-SPEC
		{
		  "dataset": "fashion", "model": "$1", "slices": $3, "seed": $4,
		  "net": {"arch": "resnet", "depth": 20, "width": $2, "stem": 1, "norm": "batch"},
		  "batch": 128, "lr": 0.1, "shift": 2, "flip": true, "erase": 8,
		  "epochs": ${EPOCHS:-40}
		}
	SPEC
	"$inferfs" wait "$job/state" --timeout 1m
	while :; do
		state=$(cat "$job/state")
		lines=$(grep -c "" "$job/metrics.csv" 2>/dev/null) || lines=0
		if [ "$lines" -gt "$shown" ]; then
			tail -n +$((shown + 1)) "$job/metrics.csv"
			shown=$lines
		fi
		case $state in
		done) break ;;
		failed | stopped)
			cat "$job/error" >&2
			exit 1
			;;
		esac
		sleep 5
	done
	echo "$1: trained in $(((SECONDS - start) / 60)) min"
	rm -rf "${dir:?}/$1"
	cp -r "$ml/models/$1/latest/" "$dir/$1"
	cat "$dir/$1/slices.csv"
}

for seed in "$@"; do
	if [ "$alone" ]; then
		for rate in 0.25 0.5 0.75; do
			train "alone-$rate-seed-$seed" "$(awk -v w=$width -v r=$rate 'BEGIN { print w * r }')" "[1]" "$seed"
		done
	else
		train "seed-$seed" $width "[0.25, 0.5, 0.75, 1]" "$seed"
	fi
done

# Of the seeds trained so far.
means() { # NAME
	cat "$dir/$1"-*/slices.csv | awk -F, -v of="$1" '
		$1 == "slice" { for (i = 1; i <= NF; i++) column[$i] = i; next }
		$column["precision"] == "f32" { sum[$1] += $column["test_accuracy"]; n[$1]++ }
		END { for (s in sum) printf "%s: rate %s: %.2f %% (mean of %d)\n", of, s, sum[s] / n[s], n[s] }' | sort
}

echo "On the test images:"
if [ "$alone" ]; then
	for rate in 0.25 0.5 0.75; do
		means "alone-$rate-seed"
	done
else
	means seed
fi
"$inferfs" umount "$ml"
