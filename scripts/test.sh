#!/usr/bin/env bash
# Sets up a virtual environment and runs the tests: bash scripts/test.sh [pytest arguments]
# A core each for up to four processes (-n 0: one process), files in one piece for their fixtures.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
install requirements.txt
install requirements-dev.txt
install requirements-optional.txt || echo "not all optional packages: their tests are skipped"
# Without a GPU, the tests of its paths (tests/gpu) take them on the CPU.
has_gpu='import sys, torch; sys.exit(not torch.cuda.is_available())'
"$venv/bin/python" -c "$has_gpu" || export MSA_GPU_TEST_DEVICE="${MSA_GPU_TEST_DEVICE:-cpu}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
"$venv/bin/python" -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"
