#!/usr/bin/env bash
# numba's cache looks at the file of a kernel, not at what the kernel inlines from other files: after any change of a
# source all compiled kernels are dropped, or an old one could go on running.
set -euo pipefail
cd "$(dirname "$0")/.."
stamp=.venv/.kernels
if [ ! -e "$stamp" ] || [ -n "$(find daemon plugins -name '*.py' -newer "$stamp" -print -quit)" ]; then
  find daemon plugins \( -name '*.nbi' -o -name '*.nbc' \) -delete
  rm -rf build/checked-kernels build/bounds-kernels # the same with bounds checks, of tests/property and `make fuzz`
  touch "$stamp"
fi
