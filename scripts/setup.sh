# Sourced by demo.sh and test.sh: a virtual environment with requirements.txt, reused if present.
# MSA_VENV names another folder than .venv; MSA_PYTHON another interpreter than python3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${MSA_VENV:-.venv}
if [ ! -x "$venv/bin/python" ]; then
  echo "making a virtual environment in $venv"
  "${MSA_PYTHON:-python3}" -m venv "$venv"
fi
install() { # install FILE: once for each content of a file of requirements
  local stamp
  stamp="$venv/installed-$(cksum <"$1" | cut -d' ' -f1)"
  if [ ! -e "$stamp" ]; then
    echo "installing $1 (PyTorch is large: some minutes and about 6 GB)"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$1" && touch "$stamp"
  fi
}
