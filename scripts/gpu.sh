#!/usr/bin/env bash
# Tests and measurements on a GPU, without installing anything: bash scripts/gpu.sh [arguments]
# MSA_PYTHON names another interpreter than python3. The same command goes on where it stopped.
cd "$(dirname "${BASH_SOURCE[0]}")/.." && exec "${MSA_PYTHON:-python3}" -m benchmarks.gpu "$@"
