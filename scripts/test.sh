#!/usr/bin/env bash
# Checks everything: style, types, tests. Arguments go to pytest, and then only pytest runs:
#
#   bash scripts/test.sh
#   bash scripts/test.sh tests/test_imports.py -x
#
# Makes the environment first when there is none; see setup.sh. LONGREEL_REQUIRE_ALL=1 lets no test be skipped for a
# missing tool or missing media.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

cd "$LONGREEL_ROOT"
if [ "$#" -eq 0 ]; then
    "$LONGREEL_BIN/ruff" check .
    "$LONGREEL_BIN/ruff" format --check .
    "$LONGREEL_BIN/mypy"
fi
PATH="$LONGREEL_BIN:$PATH" exec "$LONGREEL_BIN/python" -m pytest "$@"
