#!/usr/bin/env bash
# Resident memory: the daemon with 100,000 files in the tree (all of them listed), an inference worker that has
# served 1,000 images at every slice, a training worker at the quickstart's settings.
source "$(dirname "$0")/lib.sh"
n=${N:-100000}

bench_mount ${OPTIONS:+-o "$OPTIONS"}
bench_model
mkdir "$ml/datasets/many"
python3 - "$ml/datasets/many" "$n" <<'P'
import os, sys
root, n = sys.argv[1], int(sys.argv[2])
for i in range(n):
    if i % 1000 == 0:
        os.mkdir("%s/%d" % (root, i // 1000))
    with open("%s/%d/%d.txt" % (root, i // 1000, i), "wb") as f:
        f.write(b"%d" % i * 100)
P
ls -lR "$ml/datasets/many" | wc -l
echo "daemon, $n files: $(rss_mib "$daemon") MiB"
bench_endpoint app '{"model":"fashion","explain":["gradcam"]}'
bench_png 1000
for ms in 100 300 1000 60000; do
	mkdir "$ml/infer/app/in/b$ms"
	cp "$work"/png/*.png "$ml/infer/app/in/b$ms/"
	setfattr -n user.deadline -v ${ms}ms "$ml/infer/app/in/b$ms"
	"$inferfs" wait "$ml/infer/app/out/b$ms/task.json" --timeout 2m
done
echo "inference worker: $(rss_mib "$(workers infer)") MiB"
mkdir "$ml/datasets/fashion" "$ml/jobs/fashion"
cp $data/*.gz "$ml/datasets/fashion/"
sed -n '/<<.SPEC.$/,/^SPEC$/p' examples/quickstart.sh | sed '1d;$d' >"$ml/jobs/fashion/spec.json"
for _ in $(seq 90); do
	sleep 1
	[ "$(cat "$ml/jobs/fashion/state" 2>/dev/null)" = running ] && [ -e "$ml/jobs/fashion/progress" ] && break
done
sleep 20
echo "training worker: $(rss_mib "$(workers train)") MiB ($(cat "$ml/jobs/fashion/progress"))"
echo "daemon at the end: $(rss_mib "$daemon") MiB"
