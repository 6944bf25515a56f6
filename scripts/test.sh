#!/usr/bin/env bash
# Sets up a virtual environment and runs the tests: bash scripts/test.sh [pytest arguments]
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
install requirements.txt
install requirements-dev.txt
install requirements-optional.txt || echo "not all optional packages: their tests are skipped"
"$venv/bin/python" -m pytest "$@"
