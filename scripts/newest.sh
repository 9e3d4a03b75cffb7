#!/usr/bin/env bash
# The quick tests once more on the newest Python that this machine has and we support, in .venv-newest, with coverage
# measured and gated: from 3.12 on that costs next to nothing, on 3.11 two fifths of the tests' time. `newest.sh set-up`
# makes the environment and no more.
set -euo pipefail
cd "$(dirname "$0")/.."

version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

newest() {
  local candidate
  for candidate in python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13.*/bin/python \
    python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12.*/bin/python; do
    if version "$candidate" >/dev/null; then echo "$candidate"; return; fi
  done
}

export VENV=.venv NUMBA_OPT=1  # kernels that are compiled anew here are so in three quarters of the time
PYTHON=$(newest)
export PYTHON
if [[ -n $PYTHON && $(version "$PYTHON") != "$(version .venv/bin/python)" ]]; then
  VENV=.venv-newest
  [[ $VENV/.set-up -nt requirements/dev.txt && $VENV/.set-up -nt pyproject.toml ]] || scripts/setup.sh
fi
if [[ ${1-} == set-up ]]; then exit; fi
[[ $(version $VENV/bin/python) == 3.11 ]] || export COVERAGE_CORE=sysmon
echo "newest: the quick tests on Python $(version $VENV/bin/python)" >&2
tests=("$VENV/bin/python" -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder -m "not slow")
if (($#)); then exec "${tests[@]}" "$@"; fi
"${tests[@]}" --cov --cov-report=
"$VENV/bin/coverage" report --skip-covered --fail-under=85
"$VENV/bin/coverage" report --skip-covered --fail-under=95 --include='daemon/tickcast/engine/core/*'
