#!/usr/bin/env bash
# Builds the tests with the feature `wgpu` and runs the GPU tests on two software drivers: Mesa's
# lavapipe and the SwiftShader that Chromium ships. Needs Debian or a distribution based on it.
#
# The first argument replaces the Cargo features: `RGBY_AUTOTUNE=1 tests/devices.sh wgpu,autotune`.
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

# A low optimization level is enough: the drivers do most of the work.
export CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_INCREMENTAL=0
# Without it a driver writes to stderr, where the tests expect only one error.
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
