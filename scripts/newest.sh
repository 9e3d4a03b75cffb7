#!/usr/bin/env bash
# The quick tests once more on the newest Python that this machine has and we support, in .venv-newest.
set -euo pipefail
cd "$(dirname "$0")/.."
export VENV=.venv-newest

version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

newest() {
  local candidate
  for candidate in python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13.*/bin/python \
    python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12.*/bin/python; do
    if version "$candidate" >/dev/null; then echo "$candidate"; return; fi
  done
}

PYTHON=$(newest)
export PYTHON
if [[ -z $PYTHON || $(version "$PYTHON") == "$(version .venv/bin/python)" ]]; then
  echo "newest: no other Python than that of .venv, $(version .venv/bin/python), is here; its tests have run" >&2
  exit 0
fi
echo "newest: the quick tests on Python $(version "$PYTHON")" >&2
[[ $VENV/.set-up -nt requirements/dev.txt && $VENV/.set-up -nt pyproject.toml ]] || scripts/setup.sh
"$VENV/bin/python" -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder -m "not slow" "$@"
