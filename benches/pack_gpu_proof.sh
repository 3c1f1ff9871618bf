#!/bin/sh
# Packs everything that gpu_proof.py needs into one archive for a machine without internet.
#
#     benches/pack_gpu_proof.sh OUT.tar.gz RGBY...
#
# Each RGBY is a release build; its name in the archive is that of the file. The programs are
# stripped. Fails if the archive is larger than 64 MiB.
set -eu
[ $# -ge 2 ] || { echo "usage: $0 OUT.tar.gz RGBY..." >&2; exit 2; }
out=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/gpu_proof"
cp "$here"/gpu_proof*.py "$here/torch_networks.py" "$work/gpu_proof"
for program in "$@"; do
    strip -o "$work/gpu_proof/$(basename "$program")" "$program"
    chmod 755 "$work/gpu_proof/$(basename "$program")"
done
tar -czf "$out" -C "$work" gpu_proof
bytes=$(wc -c < "$out")
echo "$out: $((bytes / 1048576)) MiB"
[ "$bytes" -le 67108864 ] || { echo "$out is larger than 64 MiB" >&2; exit 1; }
