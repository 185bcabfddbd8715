# To be sourced. Activates .venv, with the project and its EXTRAS installed; completes an interrupted installation.
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "spanbert_jax requires Python 3.11 or newer; set PYTHON to such an interpreter" >&2
  exit 2
fi
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  rm -rf .venv
  "$python" -m venv .venv
fi
source .venv/bin/activate
stamp=.venv/installed-${EXTRAS//[^a-z]/-}
if [ ! "$stamp" -nt setup.py ]; then # the stamp is written last, so that an interrupted installation is repeated
  echo "installing spanbert_jax[$EXTRAS] into .venv (one or two minutes, 2.4 GB)"
  python -m pip install --quiet --disable-pip-version-check --editable ".[$EXTRAS]"
  touch "$stamp"
fi
