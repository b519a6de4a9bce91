#!/usr/bin/env bash
# From a fresh clone to the first answers: installs packages, builds, mounts, trains a sliced ResNet on Fashion-MNIST (60,000 real
# images of Debian's dataset-fashion-mnist), serves test images with an ample and with a tight deadline.
#
#   examples/quickstart.sh              leaves the tree mounted, to look around in
#   examples/quickstart.sh --unmount    unmounts it at the end
#
# Everything it makes lies in build/quickstart: state/ is what the filesystem keeps, ml/ is the mount.
set -euo pipefail
cd "$(dirname "$0")/.."

data=/usr/share/datasets/fashion-mnist
dir=$PWD/build/quickstart
ml=$dir/ml
inferfs=$PWD/build/release/inferfs
images=400

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; }

say "Packages and build"
examples/install-packages.sh
cmake -S . -B build/release -G Ninja -DBUILD_TESTING=OFF >/dev/null
ninja -C build/release --quiet

say "Mount"
mkdir -p "$dir/state" "$ml"
if ! mountpoint -q "$ml"; then
	show "$inferfs" mount "$dir/state" "$ml"
fi
show ls "$ml"

say "A data set is a directory: copy the files"
mkdir -p "$ml/datasets/fashion"
if ! [ -e "$ml/datasets/fashion/train-images-idx3-ubyte.gz" ]; then
	show cp "$data"/*.gz "$ml/datasets/fashion/"
	# IDX files have numbers for labels; the names go beside them.
	printf '%s\n' T-shirt Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag "Ankle boot" \
		>"$ml/datasets/fashion/labels.txt"
fi
"$inferfs" wait "$ml/datasets/fashion/dataset.json" --timeout 2m
show cat "$ml/datasets/fashion/dataset.json"

say "Train: writing spec.json starts the job"
job=$ml/jobs/fashion
mkdir -p "$job"
if [ "$(cat "$job/state" 2>/dev/null)" != done ]; then
	cat >"$job/spec.json" <<'SPEC'
{
  "dataset": "fashion",
  "net": {"arch": "resnet", "depth": 8, "width": 32, "stem": 2},
  "batch": 64, "lr": 0.05, "distill": 0, "shift": 1, "flip": true,
  "budget": "5m"
}
SPEC
fi
"$inferfs" wait "$job/state" --timeout 1m
while :; do
	case $(cat "$job/state") in
	done) break ;;
	failed | stopped)
		cat "$job/error" >&2
		exit 1
		;;
	esac
	[ ! -e "$job/progress" ] || printf '\r\033[K%s' "$(cat "$job/progress")"
	sleep 1
done
echo
show cat "$ml/models/fashion/latest/slices.csv"

say "Serve: an endpoint is a directory, too"
app=$ml/infer/app
mkdir -p "$app"
echo '{"model":"fashion","explain":["gradcam"]}' >"$app/spec.json"
"$inferfs" wait "$app/slices.csv" --timeout 1m || {
	cat "$app/error" >&2
	exit 1
}
show cat "$app/slices.csv"

rm -rf "$dir/png"
build/release/examples/idx2png $data/t10k-images-idx3-ubyte.gz $data/t10k-labels-idx1-ubyte.gz \
	"$dir/png" 0 $images

# Copies the images into a new batch, sets the deadline, waits for the answers and counts them.
serve() { # BATCH DEADLINE
	rm -rf "$app/in/$1" "$app/out/$1"
	mkdir "$app/in/$1"
	cp "$dir"/png/*.png "$app/in/$1/"
	show setfattr -n user.deadline -v "$2" "$app/in/$1"
	"$inferfs" wait "$app/out/$1/task.json" --timeout 2m
	# results.csv has a header; the true class is in the file's name: NNNNN-CLASS.png
	awk -F, -v names="$ml/models/fashion/latest/labels.txt" '
		BEGIN { while ((getline line < names) > 0) class[line] = n++ }
		NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
	$column["loaded"] == "no" { next }
		{
			status[$column["status"]]++
			split($column["file"], part, /[-.]/)
			if ($column["status"] == "ok" && class[$column["label"]] == part[2]) right++
			total++
		}
		END {
			for (s in status) printf "%d %s  ", status[s], s
			printf "\n%.1f %% of all instances answered rightly and in time\n", 100 * right / total
		}' "$app/out/$1/results.csv"
	show head -n 4 "$app/out/$1/results.csv"
	show cat "$app/out/$1/task.json"
}

say "$images images with an ample deadline"
serve batch1 20s
say "Pictures that explain the answers"
"$inferfs" wait "$app/out/batch1/$(cd "$dir/png" && ls | tail -n 1).gradcam.png" --timeout 2m
find "$app/out/batch1" -name '*.gradcam.png' | sort | sed -n 1,3p
echo "(open them with any picture viewer)"

say "The same with too little time for the full network: slices serve"
# Between what the fastest slice needs to compute them all and what the full network needs, but time to publish them, too.
publish=$(awk '$1 == "inferfs_publish_seconds" { print 1000 * $2 }' "$ml/metrics")
tight=$(awk -F, -v n=$images -v publish="$publish" '
	NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
	{ t = $column["ms"]; if (!min || t < min) min = t; if (t > max) max = t }
	END {
		compute = n / 32 * (min + max) / 2
		publish *= 1.2 * n
		printf "%dms", (compute > publish ? compute : publish) + 15
	}' "$app/slices.csv")
# Otherwise the full network has computed most of them by the time that all are copied.
echo '{"model":"fashion","explain":["gradcam"],"ahead":false}' >"$app/spec.json"
serve batch2 "$tight"

say "Schedules of the finished tasks"
sleep 0.5 # status files are renewed at most five times a second
show cat "$app/schedule.csv"

if [ "${1:-}" = --unmount ]; then
	say "Unmount"
	show "$inferfs" umount "$ml"
else
	say "Look around"
	echo "The tree is mounted at $ml"
	echo "Unmount it with: $inferfs umount $ml"
fi
