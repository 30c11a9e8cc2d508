# The checkout's own environment in .venv; sourced by everything in scripts/. Nothing is written outside the checkout.
#
#   ensure_environment run|test    creates .venv if needed, and installs the compiled package in it if its sources changed;
#                                  "test" adds the tools of the tests
#   ensure_venv                    creates .venv if there is none, with nothing but the checkout in it: some seconds
#   ensure_requirements test       installs what the package and its tests need, without the package; it may run beside
#                                  ensure_environment, which compiles meanwhile
#   run_tool NAME ARGUMENT …       runs this module of tools/ with the installed package, in place of the shell
#   offer_help NAME ARGUMENT …     answers --help before anything is installed, if the module needs no package for it
#
# programs.sh, which this file sources, installs other programs.
#
# What always holds: if .venv/installed exists, the sources that it names are installed completely.
# MESH_PURE=1 installs uncompiled.

root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
venv=$root/.venv
stamp=$venv/installed
log=$venv/install.log
export PIP_CACHE_DIR=$venv/cache PIP_DISABLE_PIP_VERSION_CHECK=1
# The installed package is used, even if the current folder has its sources.
export PYTHONSAFEPATH=1

say() { printf '%s\n' "$@" >&2; }

fail() {
    say "$@"
    exit 1
}

# A hash of the package's sources and of the kind of build.
fingerprint() {
    (
        cd "$root" || exit 1
        printf '%s\n' "${MESH_PURE:-}"
        find mesh pyproject.toml setup.py README.md LICENSE -name __pycache__ -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    ) | sha256sum | cut -d' ' -f1
}

# Whether the sources with this fingerprint, and these extras, are installed.
current() {
    [ -x "$venv/bin/mesh" ] && [ -r "$stamp" ] || return 1
    local sources extras
    read -r sources extras <"$stamp" || return 1
    [ "$sources" = "$1" ] && { [ "$extras" = "$2" ] || [ "$extras" = test ]; }
}

# A Python of a supported version: python3, else one with its version in its name.
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

# A .venv with pip, whose processes find tools and tests. The checkout is last on the path, so an installed package is found
# first.
prepare_venv() {
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv
    printf '%s\n' "$root" >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/checkout.pth"
}

# Runs pip install; never two at the same time.
pip_install() {
    if ! flock "$venv/pyvenv.cfg" "$venv/bin/python" -m pip install "$@" </dev/null >"$venv/pip.log" 2>&1; then
        tail -n 30 "$venv/pip.log" >&2
        fail "The installation failed; the log is .venv/pip.log"
    fi
}

# Installs what pyproject.toml names; with the tools of the tests for "test".
install_requirements() {
    "$venv/bin/python" -c "
import sys, tomllib
project = tomllib.load(open(sys.argv[1], 'rb'))['project']
print(*project['dependencies'], *project['optional-dependencies'].get(sys.argv[2], []), sep='\n')
" "$root/pyproject.toml" "$1" >"$venv/requirements-$1.txt"
    pip_install -r "$venv/requirements-$1.txt"
}

# Installs the package with these extras from a copy, so that the build writes nothing into the checkout, and edits during
# the build have no effect.
install_package() {
    local extras=$1 copy=$venv/build
    prepare_venv
    rm -f "$stamp"
    rm -rf "$copy"
    mkdir -p "$copy/source" "$copy/tmp"
    (cd "$root" && tar -cf - --exclude=__pycache__ --exclude='*.so' mesh pyproject.toml setup.py README.md LICENSE) |
        tar -xf - -C "$copy/source" || fail "The sources could not be copied."
    if ! TMPDIR=$copy/tmp "$venv/bin/python" -m pip wheel --no-deps -v -w "$copy" "$copy/source" </dev/null >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        fail "The package could not be built; the log is .venv/install.log"
    fi
    install_requirements "$extras"
    pip_install --force-reinstall --no-deps "$copy"/*.whl
    grep -h '^ *vehicle-mesh: ' "$log" >&2 || true # setup.py's message if it cannot compile
    rm -rf "$copy"
}

install_stamped() {
    local wanted extras=$1
    wanted=$(fingerprint)
    current "$wanted" "$extras" && return
    say "installing vehicle-mesh into .venv (the first time takes a few minutes, later about one)"
    install_package "$extras"
    printf '%s %s\n' "$wanted" "$extras" >"$stamp.new"
    mv "$stamp.new" "$stamp"
    say "installed $("$venv/bin/mesh" --version)"
}

# Of two calls at the same time, the second waits, and then has nothing to install.
one_at_a_time() {
    # This file, which always exists, is the lock.
    exec 9<"$root/tools/environment.sh"
    flock --nonblock 9 || {
        say "waiting for another installation of this checkout"
        flock --timeout 1800 9 || fail "The other installation did not end within half an hour."
    }
    "$@" 9<&-
    exec 9<&-
}

ensure_environment() {
    current "$(fingerprint)" "$1" || one_at_a_time install_stamped "$1"
}

ensure_venv() {
    one_at_a_time prepare_venv
}

ensure_requirements() {
    current "$(fingerprint)" "$1" && return
    say "installing the tools of the tests into .venv"
    install_requirements "$1"
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
