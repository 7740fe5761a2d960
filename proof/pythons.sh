#!/usr/bin/env bash
# The tests under each newer Python that is here: python3.12 and later on the PATH, or pyenv's. The suite runs on one
# Python only, and others differ: in how impure calls are watched (engine/guard), in how deep data may be nested, in
# docstrings, in asyncio. Left out is what takes long and rests on databases, browsers and other processes: two thirds
# of the suite's time, in which 3.12 and 3.13 have found nothing so far.
set -euo pipefail
cd "$(dirname "$0")/.."

elsewhere=(cli docs page recovery simulation store stress)
failed=()
count=0
for minor in 12 13 14 15; do
    for python in "$(command -v "python3.$minor" || true)" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$minor".*/bin/python; do
        # A shim of pyenv's may stand for a version that is not chosen.
        "$python" -c "import sys; sys.exit(sys.version_info[:2] != (3, $minor))" 2>/dev/null || continue
        venv=.venv/pythons/3.$minor
        if [ ! "$venv/.ready" -nt pyproject.toml ]; then
            echo "Setting up $venv, once"
            "$python" -m venv --clear "$venv"
            "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[dev]' || {
                echo "3.$minor: what the tests need cannot be installed there: not tested"
                break
            }
            touch "$venv/.ready"
        fi
        count=$((count + 1))
        echo "== $("$venv/bin/python" --version)"
        "$venv/bin/python" -m compileall -qj0 src examples
        HYPOTHESIS_PROFILE=dev PYTHONDONTWRITEBYTECODE='' timeout 400 "$venv/bin/python" -m pytest -q -n auto \
            --dist worksteal -p no:cacheprovider -r fE "${elsewhere[@]/#/--ignore=tests/}" || failed+=("3.$minor")
        break
    done
done

if [ "$count" -eq 0 ]; then
    echo 'No Python newer than 3.11 is here (python3.12 … on the PATH, or pyenv): nothing was tested under one.'
elif [ ${#failed[@]} -gt 0 ]; then
    echo "failed under Python ${failed[*]}" >&2
    exit 1
fi
