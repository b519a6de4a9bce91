#!/usr/bin/env bash
# From JPEG to label through the mount, against the bare engine on pixels, both with THREADS threads, in turns: images/s.
#
#	pip install torch torchvision safetensors pillow numpy
#	BUILD=build/release [PYTHON=python3] [COUNT=512] [ROUNDS=3] [THREADS=2] tests/bench/worker-engine.sh
#
# ResNet-50 with random weights, by import; COUNT JPEGs of 500×375 as one batch, which is submitted when all are there. Ours counts from the
# batch's submission to its last answer.
source "$(dirname "$0")/lib.sh"
count=${COUNT:-512} rounds=${ROUNDS:-3} threads=${THREADS:-2}

"${PYTHON:-python3}" - "$work" "$count" <<'END'
import sys, numpy, torchvision
from PIL import Image
from safetensors.torch import save_file
work, count = sys.argv[1], int(sys.argv[2])
save_file(torchvision.models.resnet50().state_dict(), work + "/resnet50.safetensors")
random = numpy.random.default_rng(1)
import os
os.mkdir(work + "/jpeg")
for i in range(count):
    small = random.integers(0, 256, (24, 32, 3), dtype=numpy.uint8)
    Image.fromarray(small).resize((500, 375), Image.BICUBIC).save(f"{work}/jpeg/{i}.jpg", quality=90)
END
bench_mount -o "worker_threads=$threads"
mkdir "$ml/models/resnet50"
echo '{"net":{"arch":"resnet","depth":50,"norm":"batch"}}' >"$ml/models/resnet50/model.json"
cp "$work/resnet50.safetensors" "$ml/models/resnet50/"
"$inferfs" wait "$ml/models/resnet50/latest" --timeout 1m || { cat "$ml/models/resnet50/error" >&2; exit 1; }
bench_endpoint app '{"model":"resnet50"}'
cat "$ml/infer/app/slices.csv"

engine() {
	"$inferfs" bench resnet50 --norm batch --slices 1 --batch 32 --repeat 7 --threads "$threads" | tail -n 1 | cut -d, -f5
}

mounted() { # NAME
	cp -r "$work/jpeg" "$ml/datasets/$1"
	mv "$ml/datasets/$1" "$ml/infer/app/in/$1"
	"$inferfs" wait "$ml/infer/app/out/$1/task.json" --timeout 10m
	python3 - "$ml/infer/app/out/$1" <<'END'
import glob, json, sys
task = json.load(open(sys.argv[1] + "/task.json"))
last = max(json.load(open(f))["finished_ms"] for f in glob.glob(sys.argv[1] + "/*.jpg.json"))
print(round(len(glob.glob(sys.argv[1] + "/*.jpg.json")) / last * 1e3, 1))
END
}
for i in $(seq "$rounds"); do
	echo "engine $(engine) mounted $(mounted "batch$i") engine $(engine)"
done
