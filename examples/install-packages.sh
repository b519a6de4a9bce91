#!/usr/bin/env bash
# Installs the Debian packages that inferfs needs: `install-packages.sh` what it is built and run with,
# `install-packages.sh test` also what its tests use. Asks apt only for what is missing.
set -euo pipefail

build=(build-essential cmake ninja-build pkg-config fuse3 libfuse3-dev librocksdb-dev libdnnl-dev libglpk-dev
	libcjson-dev libspng-dev libturbojpeg0-dev zlib1g-dev libarchive-dev
	libprotobuf-c-dev protobuf-c-compiler libonnx-dev attr dataset-fashion-mnist)
test=(libcmocka-dev clang clang-format clang-tidy libclang-rt-14-dev libomp-dev inotify-tools rsync git procps
	python3 zip 7zip zstd xz-utils bzip2 iproute2 nfs-ganesha nfs-ganesha-vfs libnfs-utils rpcbind
	python3-watchdog watchman libonnx-testdata)

wanted=("${build[@]}")
[ "${1:-}" != test ] || wanted+=("${test[@]}")
missing=()
for package in "${wanted[@]}"; do
	dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || {
		echo "These packages are missing, and there is no sudo to install them: ${missing[*]}" >&2
		exit 1
	}
	as_root=(sudo)
fi
echo "Installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
