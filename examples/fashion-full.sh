#!/usr/bin/env bash
# The long training: a sliced ResNet on all of Fashion-MNIST, through the mount, about an hour on 2 cores. Prints a line an epoch and
# at the end every slice's accuracy on the 10,000 test images. An interrupted run goes on from its last
# epoch when the script is started again.
#
# Everything it makes lies in build/fashion-full: state/ is what the filesystem keeps, ml/ is the mount, model/ a copy of the result.
set -euo pipefail
cd "$(dirname "$0")/.."

data=/usr/share/datasets/fashion-mnist
dir=$PWD/build/fashion-full
ml=$dir/ml
inferfs=$PWD/build/release/inferfs

examples/install-packages.sh
cmake -S . -B build/release -G Ninja -DBUILD_TESTING=OFF >/dev/null
ninja -C build/release --quiet
mkdir -p "$dir/state" "$ml"
mountpoint -q "$ml" || "$inferfs" mount "$dir/state" "$ml"

mkdir -p "$ml/datasets/fashion" "$ml/jobs/full"
[ -e "$ml/datasets/fashion/train-images-idx3-ubyte.gz" ] || cp "$data"/*.gz "$ml/datasets/fashion/"
[ -e "$ml/jobs/full/spec.json" ] || cat >"$ml/jobs/full/spec.json" <<'SPEC'
{
  "dataset": "fashion", "model": "fashion-full",
  "net": {"arch": "resnet", "depth": 8, "width": 32, "stem": 1},
  "batch": 128, "lr": 0.05, "distill": 0.5, "shift": 2, "flip": true,
  "epochs": 40
}
SPEC
start=$SECONDS
shown=0
"$inferfs" wait "$ml/jobs/full/state" --timeout 1m
while :; do
	state=$(cat "$ml/jobs/full/state")
	lines=$(cat "$ml/jobs/full/metrics.csv" 2>/dev/null | wc -l)
	if [ "$lines" -gt "$shown" ]; then
		tail -n +$((shown + 1)) "$ml/jobs/full/metrics.csv"
		shown=$lines
	fi
	case $state in
	done) break ;;
	failed | stopped)
		cat "$ml/jobs/full/error" >&2
		exit 1
		;;
	esac
	sleep 5
done
echo "trained in $(((SECONDS - start) / 60)) min"
cat "$ml/models/fashion-full/latest/slices.csv"
rm -rf "$dir/model"
cp -r "$ml/models/fashion-full/latest/" "$dir/model"
"$inferfs" umount "$ml"
