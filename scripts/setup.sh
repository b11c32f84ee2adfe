# Makes or updates the virtual environment. Read by demo.sh and test.sh (source it), or run by itself.
#
#   LONGREEL_VENV=DIR   the environment's folder (default: .venv in the checkout)
#
# Afterwards LONGREEL_ROOT is the checkout and LONGREEL_BIN the environment's folder of programs. Nothing outside the
# environment is changed, an active environment is left alone, and no root is needed.
set -euo pipefail

LONGREEL_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
LONGREEL_VENV_DIR="${LONGREEL_VENV:-$LONGREEL_ROOT/.venv}"
LONGREEL_EXTRAS="${LONGREEL_EXTRAS:-cpu,dev}"

setup_fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

# The newest Python that really runs, is of a version that we support, and has the modules named. A name on the PATH may
# be an empty shim.
find_python() {
    local name
    for name in python3.13 python3.12 python3.11 python3.10 python3 python; do
        if "$name" -c 'import importlib, sys
[importlib.import_module(name) for name in sys.argv[1:]]
raise SystemExit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' "$@" >/dev/null 2>&1; then
            printf '%s\n' "$name"
            return
        fi
    done
    return 1
}

make_environment() {
    local python version
    if ! python="$(find_python venv ensurepip)"; then
        python="$(find_python)" || setup_fail "no Python 3.10 to 3.13 found (looked for python3.13 ... python3.10, python3" \
            "and python). Install one, for example on Debian or Ubuntu: sudo apt install python3 python3-venv"
        version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
        setup_fail "Python $version is here, but cannot make virtual environments (it has no ensurepip). On Debian or" \
            "Ubuntu: sudo apt install python$version-venv"
    fi
    printf 'setup: making %s with %s\n' "$LONGREEL_VENV_DIR" "$("$python" -V)" >&2
    "$python" -m venv "$LONGREEL_VENV_DIR" || setup_fail "the environment could not be made; the message is above"
}

# What an installed environment depends on: when it is unchanged, there is nothing to install.
setup_stamp() {
    {
        cat "$LONGREEL_ROOT/pyproject.toml"
        printf '%s\n' "$LONGREEL_ROOT" "$LONGREEL_EXTRAS"
        "$LONGREEL_BIN/python" -V
    } | sha256sum | cut -d ' ' -f 1
}

install_longreel() {
    local stamp_file="$LONGREEL_VENV_DIR/longreel-setup.sha256" stamp
    stamp="$(setup_stamp)"
    if [ -f "$stamp_file" ] && [ "$(cat "$stamp_file")" = "$stamp" ]; then
        return
    fi
    rm -f "$stamp_file"
    printf 'setup: installing longreel[%s]; the first time this brings PyTorch and takes some minutes\n' "$LONGREEL_EXTRAS" >&2
    if ! "$LONGREEL_BIN/python" -m pip install --quiet --disable-pip-version-check -e "$LONGREEL_ROOT[$LONGREEL_EXTRAS]"; then
        setup_fail "pip could not install the dependencies; its message is above. Run this again when it is solved:" \
            "what was downloaded is kept"
    fi
    repair_opencv
    printf '%s\n' "$stamp" >"$stamp_file"
}

# A dependency brings OpenCV with windows, which needs system libraries (libGL) that a server may lack. The one without
# windows has everything that is used here.
repair_opencv() {
    if "$LONGREEL_BIN/python" -c 'import cv2' >/dev/null 2>&1; then
        return
    fi
    printf 'setup: OpenCV with windows does not load here, replacing it by the one without\n' >&2
    "$LONGREEL_BIN/python" -m pip uninstall --quiet --yes opencv-python opencv-python-headless
    "$LONGREEL_BIN/python" -m pip install --quiet --disable-pip-version-check opencv-python-headless
    "$LONGREEL_BIN/python" -c 'import cv2' || setup_fail "OpenCV does not load; its message is above"
}

if [ -x "$LONGREEL_VENV_DIR/bin/python" ] && ! "$LONGREEL_VENV_DIR/bin/python" -m pip --version >/dev/null 2>&1; then
    setup_fail "$LONGREEL_VENV_DIR is broken (its Python or pip does not run); remove that folder and run this again"
fi
[ -x "$LONGREEL_VENV_DIR/bin/python" ] || make_environment
LONGREEL_VENV_DIR="$(cd "$LONGREEL_VENV_DIR" && pwd)"
LONGREEL_BIN="$LONGREEL_VENV_DIR/bin"
install_longreel
