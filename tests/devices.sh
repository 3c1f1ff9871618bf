#!/usr/bin/env bash
# Builds the tests with the feature `wgpu` and runs those of GPUs on two drivers that need none:
# Mesa's lavapipe and the SwiftShader that Chromium ships. For Debian and its like.
#
# Cargo's features may be given: `tests/devices.sh wgpu,burn/autotune`.
# The comparison with the CPU prints its figures.
set -euo pipefail
cd "$(dirname "$0")/.."

features=${1:-wgpu}
lavapipe=/usr/share/vulkan/icd.d/lvp_icd.$(uname -m).json
swiftshader=/usr/lib/chromium/vk_swiftshader_icd.json
if ! [ -f "$lavapipe" ] || ! [ -f "$swiftshader" ]; then
    sudo=$([ "$(id -u)" = 0 ] || echo sudo)
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq mesa-vulkan-drivers chromium
fi

# Dependencies are optimised lightly: the drivers, not they, do the work here.
export CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_INCREMENTAL=0
# Without it a driver complains to stderr, where the tests look for one error.
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/tmp}
start=$SECONDS
cargo test --features "$features" --no-run
echo "── build: $((SECONDS - start)) s"
for driver in "$lavapipe" "$swiftshader"; do
    start=$SECONDS
    VK_DRIVER_FILES=$driver cargo test --features "$features" -- --nocapture --test-threads 1 \
        device gpu
    echo "── $driver: $((SECONDS - start)) s"
done
