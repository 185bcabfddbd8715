#!/usr/bin/env bash
# Installs the project with its test tools into .venv and runs the whole suite. Arguments go to pytest: bash scripts/test.sh -m "not slow"
# EXTRAS (default: dev) chooses what is installed; PYTHON (default: python3) makes the environment.
set -euo pipefail
cd "$(dirname "$0")/.."
EXTRAS=${EXTRAS:-dev} source scripts/environment.sh
# Two processes, since tests are mostly compilations of a core each; in the files' order, which has no long file last.
exec python -m pytest --numprocesses="${TEST_PROCESSES:-2}" --dist=loadfile --no-loadscope-reorder "$@"
