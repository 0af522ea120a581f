#!/usr/bin/env bash
# What holo is for, in short, on any system: smoke.sh PYTHON
set -euo pipefail
holo=("$1" -m holo)
HOLO_HOME=$(mktemp -d)
export HOLO_HOME
"${holo[@]}" record docs --name docs
"${holo[@]}" init --space one docs
"${holo[@]}" check --space one
"${holo[@]}" delete one
"${holo[@]}" uninstall --yes
