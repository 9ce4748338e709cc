#!/usr/bin/env bash
# Installs what the tests drive dpm with, side by side and without root, below target/counterparts/:
# pip and uv as clients, devpi as another cache. Nothing outside that folder changes. Does nothing when the pins
# below are what is installed.
set -euo pipefail

# One folder each, and what pip installs into it.
counterparts=(
    "pip pip==26.3"
    "uv uv==0.13.9"
    "devpi devpi-server==6.20.3"
)

root=$(cd "$(dirname "$0")/.." && pwd)
into=${CARGO_TARGET_DIR:-$root/target}/counterparts

fail() {
    echo "counterparts: $*" >&2
    exit 1
}

# The tests cut the network off with these.
for tool in python3 unshare nsenter ip; do
    command -v "$tool" >/dev/null || fail "there is no $tool here; Debian has it in python3, util-linux, iproute2"
done

for counterpart in "${counterparts[@]}"; do
    read -r name pins <<<"$counterpart"
    folder=$into/$name
    wanted="$pins $(python3 -c 'import sys; print(sys.version, sys.prefix)') $folder"
    if [ -f "$folder/.pins" ] && [ "$(cat "$folder/.pins")" = "$wanted" ] && [ -x "$folder/bin/python" ]; then
        continue
    fi
    echo "counterparts: installing $pins into $folder"
    rm -rf "$folder"
    mkdir -p "$into"
    python3 -m venv "$folder" || fail "python3 cannot make a venv; Debian has what is missing in python3-venv"
    # shellcheck disable=SC2086 # several pins are several words
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: $pins ||
        fail "pip could not install $pins: this needs the package index that pip on this machine is set up for"
    printf '%s' "$wanted" >"$folder/.pins"
done
echo "counterparts: ready in $into"
