# Sourced by the scripts beside it. They are run by hand, on a built tree:
#
#   BUILD=build/release tests/bench/NAME.sh
#
# Each works in a directory of its own below ${TMPDIR:-/tmp}, unmounts and kills what it started, and
# prints figures; what they were on which day stands in RESULTS.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILD=$(realpath "${BUILD:-build/release}")
inferfs=$BUILD/inferfs
data=/usr/share/datasets/fashion-mnist
work=$(mktemp -d "${TMPDIR:-/tmp}/inferfs-bench.XXXXXX")
state=$work/state
ml=$work/ml
daemon=
mkdir "$ml"

bench_end() {
	[ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
	for _ in $(seq 50); do
		[ -n "$daemon" ] && kill -0 "$daemon" 2>/dev/null || break
		sleep 0.1
	done
	umount -l "$ml" 2>/dev/null || true
	[ -z "$daemon" ] || kill -9 "$daemon" 2>/dev/null || true
	rm -rf "$work"
}
trap bench_end EXIT

# In the foreground as a child, so that its pid is known.
bench_mount() { # [OPTION...]
	"$inferfs" mount "$state" "$ml" -f "$@" >>"$work/log" 2>&1 &
	daemon=$!
	"$inferfs" wait "$ml/README" --timeout 30s || {
		tail "$work/log" >&2
		return 1
	}
}

# The trained model of the quickstart (or MODEL=DIRECTORY with its four files) as models/fashion/1.
bench_model() {
	local from=${MODEL:-build/quickstart/ml/models/fashion/latest}
	[ -e "$from/model.json" ] || {
		echo "no trained model in $from: run examples/quickstart.sh first, or set MODEL" >&2
		return 1
	}
	mkdir -p "$ml/models/fashion/1"
	cp "$from"/{model.json,weights.safetensors,labels.txt,slices.csv} "$ml/models/fashion/1/"
	ln -s 1 "$ml/models/fashion/latest"
}

bench_endpoint() { # NAME SPEC
	mkdir "$ml/infer/$1"
	echo "$2" >"$ml/infer/$1/spec.json"
	"$inferfs" wait "$ml/infer/$1/slices.csv" --timeout 1m || {
		cat "$ml/infer/$1/error" >&2
		return 1
	}
}

bench_png() { # COUNT -> $work/png
	"$BUILD/examples/idx2png" $data/t10k-images-idx3-ubyte.gz $data/t10k-labels-idx1-ubyte.gz "$work/png" 0 "$1"
}

rss_mib() { # PID
	awk '/^VmRSS/ { printf "%.0f", $2 / 1024 }' "/proc/$1/status"
}

# The worker processes of the daemon whose kind is given.
workers() { # KIND
	local pid
	for pid in $(pgrep -P "$daemon"); do
		if tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q "worker $1"; then
			echo "$pid"
		fi
	done
}

echo "# $(basename "$0"), $(date +%F), commit $(git rev-parse --short HEAD), $(nproc) cores, $(uname -r)"
