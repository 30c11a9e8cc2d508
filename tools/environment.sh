# The checkout's own environment in .venv; sourced by everything in scripts/. Nothing is written outside the checkout.
#
#   ensure_environment run|test    makes .venv if need be, and installs the package in it, compiled, if its sources changed;
#                                  "test" adds the tools of the tests
#   run_tool NAME ARGUMENT …       becomes that module of tools/, which finds the installed package
#   offer_help NAME ARGUMENT …     answers --help before anything is installed, for a module that needs nothing for that
#
# Programs besides Python are gotten by programs.sh, which is sourced along with this file.
#
# What always holds: .venv/installed names the sources that are installed whole, or is not there. MESH_PURE=1 installs uncompiled.

root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
venv=$root/.venv
stamp=$venv/installed
log=$venv/install.log
export PIP_CACHE_DIR=$venv/cache PIP_DISABLE_PIP_VERSION_CHECK=1
# The installed package is what runs, also when the current folder holds its sources.
export PYTHONSAFEPATH=1

say() { printf '%s\n' "$@" >&2; }

fail() {
    say "$@"
    exit 1
}

# All that the installed package is made from, and the way it is built.
fingerprint() {
    (
        cd "$root" || exit 1
        printf '%s\n' "${MESH_PURE:-}"
        find mesh pyproject.toml setup.py README.md LICENSE -name __pycache__ -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    ) | sha256sum | cut -d' ' -f1
}

# Whether the sources with this fingerprint are installed, and with these extras.
current() {
    [ -x "$venv/bin/mesh" ] && [ -r "$stamp" ] || return 1
    local sources extras
    read -r sources extras <"$stamp" || return 1
    [ "$sources" = "$1" ] && { [ "$extras" = "$2" ] || [ "$extras" = test ]; }
}

# A Python that the package runs on: python3 if it fits, else one that is named by its version.
find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    fail "Python 3.11, 3.12 or 3.13 is needed and none is on the PATH (python3 is: $(python3 --version 2>&1))." \
        "On Debian or Ubuntu: apt-get install python3 python3-venv"
}

make_venv() {
    local python
    python=$(find_python) || exit 1
    say "making .venv with $("$python" --version)"
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        fail "This Python cannot make environments. On Debian or Ubuntu: apt-get install python3-venv"
    fi
    "$python" -m venv --clear "$venv" || fail "The environment .venv could not be made."
}

install_package() {
    local wanted=$1 extras=$2 copy=$venv/build package
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        make_venv
    fi
    rm -f "$stamp"
    say "installing vehicle-mesh into .venv (the first time takes a few minutes, later about one)"
    # From a copy: the build leaves nothing in the checkout, and a change made meanwhile is not half in it.
    rm -rf "$copy"
    mkdir -p "$copy/source" "$copy/tmp"
    (cd "$root" && tar -cf - --exclude=__pycache__ --exclude='*.so' mesh pyproject.toml setup.py README.md LICENSE) |
        tar -xf - -C "$copy/source" || fail "The sources could not be copied."
    package=$copy/source
    [ "$extras" = test ] && package="$copy/source[test]"
    if ! TMPDIR=$copy/tmp "$venv/bin/python" -m pip install "$package" -v </dev/null >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        fail "The installation failed; all of it is in .venv/install.log"
    fi
    grep -h '^ *vehicle-mesh: ' "$log" >&2 || true # what setup.py says when it cannot compile
    rm -rf "$copy"
    # Every process finds tools and tests, and still the installed package first: this comes last on its path.
    printf '%s\n' "$root" >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/checkout.pth"
    printf '%s %s\n' "$wanted" "$extras" >"$stamp.new"
    mv "$stamp.new" "$stamp"
    say "installed $("$venv/bin/mesh" --version)"
}

ensure_environment() {
    local extras=$1
    current "$(fingerprint)" "$extras" && return
    # Two at once: the second waits, and then finds the work done. The lock is on this file, which is always there.
    exec 9<"$root/tools/environment.sh"
    flock --nonblock 9 || {
        say "waiting for another installation of this checkout"
        flock --timeout 1800 9 || fail "The other installation did not end within half an hour."
    }
    local wanted
    wanted=$(fingerprint)
    current "$wanted" "$extras" || install_package "$wanted" "$extras" 9<&-
    exec 9<&-
}

run_tool() {
    local tool=$1
    shift
    exec "$venv/bin/python" -P -m "tools.$tool" "$@"
}

offer_help() {
    local tool=$1 word
    shift
    for word in "$@"; do
        case $word in
        -h | --help) PYTHONPATH=$root exec "$(find_python)" -P -m "tools.$tool" --help ;;
        esac
    done
}

. "$root/tools/programs.sh"
