#!/bin/sh
# The demo: a real virtualenv is recorded, restored at another path, used, damaged and repaired.
# Everything happens in .demo/, which the next demo or `make clean` removes.
set -eu

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] && [ -z "${NO_COLOR:-}" ] || say() { printf '\n%s\n' "$*"; }
run() {
    printf '$'
    for word; do
        case $word in *[!A-Za-z0-9_./=-]*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac
    done
    echo
    "$@"
}

demo=$PWD/.demo
export HOLO_HOME="$demo/home"
[ ! -d "$HOLO_HOME" ] || holo uninstall --yes --quiet  # golden trees on Btrfs are read-only, also for rm
rm -rf "$demo"
mkdir "$demo"
cd "$demo"

say "A virtualenv with numpy and rich"
run python3 -m venv env
run env/bin/pip install --quiet --disable-pip-version-check numpy rich

say "Record it once"
run holo record env --name demo

say "Restore it, here and there: two private copies"
run holo init one demo
run holo init two demo

say "Use it at its new path"
run holo run one -- pip --version
run holo run one -- python -c 'import numpy; print(numpy.__file__, numpy.arange(5).sum())'

say "Damage it"
run holo run one -- python -c 'import numpy, shutil; shutil.rmtree(numpy.__path__[0])'
run holo run two -- python -c 'import numpy; print("two still has numpy", numpy.__version__)'

say "Bring it back to pristine"
run holo restore one
run holo run one -- python -c 'import numpy; print("one has numpy", numpy.__version__, "again")'

say "The spaces are in $HOLO_HOME"
run holo list
