# To be sourced: makes .venv with the project and EXTRAS in it, or completes one that was half made, and activates it.
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "spanbert_jax needs Python 3.11 or newer; set PYTHON to one" >&2; exit 2; }
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  rm -rf .venv
  "$python" -m venv .venv
fi
source .venv/bin/activate
stamp=.venv/installed-${EXTRAS//[^a-z]/-}
if [ ! "$stamp" -nt setup.py ]; then # the stamp is written last, so a stopped installation is taken up again
  echo "installing spanbert_jax[$EXTRAS] into .venv (a minute or two, 2.4 GB)"
  python -m pip install --quiet --disable-pip-version-check --editable ".[$EXTRAS]"
  touch "$stamp"
fi
