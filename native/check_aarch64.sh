#!/usr/bin/env bash
# Cross-compiles the core for AArch64 and runs its tests under emulation, NEON and portable kernels both.
# Debian: apt-get install g++-aarch64-linux-gnu qemu-user-static cmake ninja-build. Usage: native/check_aarch64.sh [BUILD_DIR]
set -euo pipefail
source_dir=$(cd "$(dirname "$0")" && pwd)
build_dir=${1:-$source_dir/../build/aarch64}
cmake -S "$source_dir" -B "$build_dir" -G Ninja -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
  -DDELTARNN_PYTHON=OFF -DDELTARNN_TESTS=ON >/dev/null
cmake --build "$build_dir" --parallel
for test in "$build_dir"/test_*; do
  qemu-aarch64-static -L /usr/aarch64-linux-gnu "$test"
done
