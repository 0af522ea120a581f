#!/usr/bin/env bash
# The steps of action.yml. Inputs come in variables, so that nothing in them is taken for a command.
set -euo pipefail

setup() {
    if ! command -v holo >/dev/null; then
        python3 -m venv "$RUNNER_TEMP/holo"
        local bin=$RUNNER_TEMP/holo/bin
        [ -d "$bin" ] || bin=$RUNNER_TEMP/holo/Scripts
        "$bin/python" -m pip install --quiet "$GITHUB_ACTION_PATH/../../..[uv,remote]"
        printf '%s\n' "$bin" >>"$GITHUB_PATH"
    fi
    printf 'HOLO_HOME=%s\n' "${INPUT_HOME:-$RUNNER_TEMP/holo-home}" >>"$GITHUB_ENV"
    if [ -n "$INPUT_REMOTE" ]; then
        printf 'HOLO_REMOTE=%s\n' "$INPUT_REMOTE" >>"$GITHUB_ENV"
    fi
}

pull() {
    holo pull "$INPUT_CATALOG"
}

restore() {
    local source=$INPUT_CATALOG
    set -- --space "$INPUT_SPACE" --json
    if [ -z "$source" ] && [ -n "$INPUT_BLUEPRINT" ]; then
        case $INPUT_BLUEPRINT in
            */*) source=$INPUT_BLUEPRINT ;;
            *) source=./$INPUT_BLUEPRINT ;; # else it could be the name of a catalog
        esac
    fi
    [ -z "$source" ] || set -- "$@" "$source"
    [ -z "$INPUT_TO" ] || set -- "$@" --to "$INPUT_TO"
    holo init "$@" >"$RUNNER_TEMP/holo-report.json"
    python3 -c '
import json, sys
report = json.load(open(sys.argv[1], encoding="utf-8"))
for key in ("path", "catalog", "digest"):
    print(f"{key}={report[key]}")
' "$RUNNER_TEMP/holo-report.json" >>"$GITHUB_OUTPUT"
}

save() {
    holo push "$INPUT_CATALOG"
}

"$1"
