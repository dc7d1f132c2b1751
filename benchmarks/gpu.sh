#!/bin/sh
# Measures the network on this machine's GPU in at most five minutes, and writes benchmarks/results/gpu.json.
# Needs the environment of `pip install -e ".[torch]"`: .venv of the checkout, or that of PYTHON. Installs nothing.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
exec timeout 300 "$python" -m benchmarks.gpu "$@"
