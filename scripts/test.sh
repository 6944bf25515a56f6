#!/usr/bin/env bash
# Sets up a virtual environment and runs the tests: bash scripts/test.sh [pytest arguments]
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
install requirements.txt requirements-dev.txt
"$venv/bin/python" -m pytest "$@"
