#!/usr/bin/env bash
# Shows Longreel at work: draws short videos, indexes them, asks for them, and shows the answers beside the truth.
# Arguments go to `longreel demo`; see `longreel demo --help`. Makes the environment first when there is none; see setup.sh.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

exec "$LONGREEL_BIN/longreel" demo "$@"
