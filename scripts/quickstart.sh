#!/usr/bin/env bash
# Installs the project into .venv, pretrains the tiny model on the embedded corpus (about 4 minutes on two CPU cores),
# plots its losses, fills held-out spans, and exports it for Hugging Face. Run it again to resume an interrupted run.
#   bash scripts/quickstart.sh [WORKDIR]
set -euo pipefail
cd "$(dirname "$0")/.."
workdir=${1:-runs/quickstart}
EXTRAS=plot source scripts/environment.sh
python scripts/pretrain.py --config=configs/spanbert.py:tiny --workdir="$workdir"
python scripts/plot_metrics.py "$workdir" --output="$workdir/loss.png"
python scripts/fill_spans.py --workdir="$workdir" --held_out=3 --top_k=1
[ -e "$workdir/huggingface" ] || python scripts/export_checkpoint.py --workdir="$workdir" --output="$workdir/huggingface"
echo "loss curves: $workdir/loss.png    Hugging Face folder: $workdir/huggingface    run: $workdir"
