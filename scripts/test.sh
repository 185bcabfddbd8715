#!/usr/bin/env bash
# Installs the project with its test tools into .venv and runs the tests, but for those that are marked slow.
# Arguments are passed to pytest:
#   bash scripts/test.sh -m ""              all tests, the slow ones too
#   bash scripts/test.sh tests/data
# EXTRAS (default: dev) are the extras to install; PYTHON (default: python3) is the interpreter of the environment.
set -euo pipefail
cd "$(dirname "$0")/.."
EXTRAS=${EXTRAS:-dev} source scripts/environment.sh
# Two processes, because tests mostly compile on one core each. Files keep their order, in which no long file is last.
exec python -m pytest --numprocesses="${TEST_PROCESSES:-2}" --dist=loadfile --no-loadscope-reorder -m "not slow" "$@"
