#!/usr/bin/env bash
# usage: make_venv.sh PYTHON FOLDER
# Makes a virtual environment, with the package that Debian keeps apart (python3-venv) installed when root.
set -eu
python=$1 folder=$2
if ! command -v "$python" >/dev/null; then
  echo "no $python here: install Python 3.10 or later, or name it: make PYTHON=python3.12 …" >&2
  exit 2
fi
"$python" - <<'EOF'
import sys
if sys.version_info < (3, 10):
    sys.exit("%s is Python %d.%d: 3.10 or later is needed, name it: make PYTHON=python3.12 ..." % ((sys.executable,) + sys.version_info[:2]))
EOF
make_it() { "$python" -m venv "$folder" 2>&1; }
if ! said=$(make_it); then
  rm -rf "$folder"
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "$package" </dev/null
    said=$(make_it) || { echo "$said" >&2; exit 1; }
  else
    echo "$said" >&2
    echo "no virtual environment could be made: on Debian and Ubuntu install it with: sudo apt-get install python3-venv" >&2
    exit 2
  fi
fi
