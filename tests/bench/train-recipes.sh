#!/usr/bin/env bash
# What a recipe costs and gives: a sliced ResNet on Fashion-MNIST with GroupNorm and with one BatchNorm a rate, with one rate drawn
# between the smallest and the full one in each step ("sampled") and with all of them ("sandwich"), with and without the full
# network's soft labels for narrow slices. Prints a line a recipe and seed: accuracy of each slice on the 10,000 test images, samples/s.
#
#	BUILD=build/release EPOCHS=6 SEEDS="1 2" THREADS=2 NORMS="group batch" NET='"depth":8,"width":32,"stem":2' tests/bench/train-recipes.sh
set -euo pipefail
cd "$(dirname "$0")/../.."

train=${BUILD:-build/release}/tests/bench-train-fashion
epochs=${EPOCHS:-6}
net=${NET:-'"depth":8,"width":32,"stem":2'}
export OMP_NUM_THREADS=${THREADS:-$(nproc)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "| norm | steps | distilled | seed | 1 | 0.75 | 0.5 | 0.25 | samples/s |"
echo "|---|---|---|---|---|---|---|---|---|"
for seed in ${SEEDS:-1}; do
	for norm in ${NORMS:-group batch}; do
		for random in 1 2; do
			for distill in 0 0.5; do
				"$train" '{"dataset":"fashion","net":{"arch":"resnet",'"$net"',"norm":"'$norm'"},
					"batch":64,"lr":0.05,"shift":1,"flip":true,
					"epochs":'"$epochs"',"random":'$random',"distill":'$distill',"seed":'"$seed"'}' \
					"$work" >"$work/log" 2>/dev/null
				speed=$(awk '{ s += $4 } END { printf "%.0f", s / NR }' "$work/log")
				awk -F, -v start="| $norm | $([ $random = 1 ] && echo sampled || echo sandwich) | $distill | $seed |" \
					-v speed="$speed" '
					NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
					$column["precision"] == "f32" { a[$column["slice"] + 0] = $column["test_accuracy"] }
					END { printf "%s %.2f | %.2f | %.2f | %.2f | %s |\n", start, a[1], a[0.75], a[0.5], a[0.25], speed }' \
					"$work/slices.csv"
			done
		done
	done
done
