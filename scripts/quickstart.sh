#!/usr/bin/env bash
# Installs the project into .venv, pretrains a tiny model on the embedded corpus (about 6 minutes on two CPU cores),
# plots its losses, fills held-out spans, and exports it for Hugging Face. Run it again to resume an interrupted run.
#   bash scripts/quickstart.sh [--plain] [WORKDIR]
# --plain takes SpanBERT's own recipe (configs/spanbert.py:tiny) instead of today's (configs/modern.py:tiny).
set -euo pipefail
cd "$(dirname "$0")/.."
recipe=modern plain=
if [ "${1:-}" = --plain ]; then recipe=spanbert plain=-plain && shift; fi
workdir=${1:-runs/quickstart$plain}
EXTRAS=plot source scripts/environment.sh
python scripts/pretrain.py --config="configs/$recipe.py:tiny" --workdir="$workdir"
python scripts/plot_metrics.py "$workdir" --output="$workdir/loss.png"
python scripts/fill_spans.py --workdir="$workdir" --held_out=3 --top_k=1
[ -e "$workdir/huggingface" ] || python scripts/export_checkpoint.py --workdir="$workdir" --output="$workdir/huggingface"
echo "loss curves: $workdir/loss.png    Hugging Face folder: $workdir/huggingface    run: $workdir"
