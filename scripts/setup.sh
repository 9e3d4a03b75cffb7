#!/usr/bin/env bash
# Makes .venv, or $VENV: the pinned, hashed requirements, tickcast itself, and its compiled kernels. Needs Python 3.11 or
# newer. It may run again at any time and touches nothing outside the checkout (package caches apart).
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS
venv=${VENV:-.venv}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  for candidate in ${PYTHON:-} python3.11 python3.12 python3.13 python3 python; do
    if is_new_enough "$candidate"; then echo "$candidate"; return; fi
  done
  echo "setup: Python 3.11 or newer is needed; set PYTHON=/path/to/python" >&2
  return 1
}

make_venv() {
  local python
  python=$(find_python)
  "$python" -m venv --clear "$venv" && return
  uv venv --clear --quiet --python "$(command -v "$python")" "$venv" && return
  echo "setup: $python cannot make a virtual environment; on Debian, apt-get install python3-venv" >&2
  return 1
}

is_new_enough "$venv/bin/python" || make_venv

install_all() {
  "$@" --require-hashes -r requirements/dev.txt && "$@" --no-deps --no-build-isolation --editable .
}
with_pip() { "$venv/bin/python" -m pip install --quiet "$@"; }
with_uv() { VIRTUAL_ENV=$PWD/$venv "$uv" pip install --quiet --compile-bytecode "$@"; }  # as pip does by itself

# uv does in half a minute what takes pip several; it is wanted, not needed.
uv=uv
if ! uv --version >/dev/null 2>&1; then
  uv=$venv/bin/uv
  "$uv" --version >/dev/null 2>&1 || with_pip --require-hashes -r requirements/uv.txt || true
fi
install_all with_uv || { echo "setup: uv failed; trying pip, which takes longer" >&2; install_all with_pip; }

scripts/fresh_kernels.sh  # what is compiled now is of these sources: the next target need not drop it
"$venv/bin/tickcast" warm || echo "setup: the kernels were not compiled now; the first start will do it" >&2

touch "$venv/.set-up"
echo "setup: ready after $((SECONDS - started)) s"
