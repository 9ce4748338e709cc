#!/usr/bin/env bash
# Installs a registry and its clients below $1, without root and beside whatever this machine has: Debian's
# docker-registry, skopeo, podman, buildah and containerd, unpacked and never configured. tests/counterparts.sh calls it.
# What is missing on this machine comes too; what it has already is used from there.
set -euo pipefail

into=$1
packages=(docker-registry skopeo podman buildah crun containerd)

fail() {
    echo "counterparts: $*" >&2
    exit 1
}

# Names only: the archive drops a version as soon as it has the next one. .packages says which came.
wanted="${packages[*]} $(uname -m)"
if [ -f "$into/.pins" ] && [ "$(cat "$into/.pins")" = "$wanted" ] && [ -x "$into/bin/docker-registry" ]; then
    exit 0
fi
for tool in apt-get dpkg-deb dpkg-query; do
    command -v "$tool" >/dev/null || fail "there is no $tool here: the registry and its clients are Debian's packages"
done
printf 'counterparts: installing %s into %s: ' "${packages[*]}" "$into"
rm -rf "$into"
mkdir -p "$into/.apt/lists/partial" "$into/.apt/cache/archives/partial" "$into/.apt/debs"

# Lists of its own: the machine's may be missing or old, and only root renews those.
# An empty status, so that the answer is everything that is needed, on this machine or not.
: >"$into/.apt/status"
apt=(apt-get -qq -o "Dir::State::lists=$into/.apt/lists" -o "Dir::State::status=$into/.apt/status"
    -o "Dir::Cache=$into/.apt/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User=)
# A source that does not answer may be one that is not needed.
"${apt[@]}" update >"$into/.apt/log" 2>&1 || true
needed=$("${apt[@]}" -s --no-install-recommends install "${packages[@]}" 2>>"$into/.apt/log" |
    sed -n 's/^Inst \([^ ]*\).*/\1/p') || true
[ -n "$needed" ] || {
    cat "$into/.apt/log" >&2
    fail "apt-get knows no ${packages[*]}: this needs the Debian archive that apt on this machine is set up for"
}

missing=()
for package in $needed; do
    # shellcheck disable=SC2016 # dpkg-query's own variable
    if [[ " ${packages[*]} " == *" $package "* ]] ||
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | head -c 9)" != installed ]; then
        missing+=("$package")
    fi
done
(cd "$into/.apt/debs" && "${apt[@]}" download "${missing[@]}" >>../log 2>&1) || {
    cat "$into/.apt/log" >&2
    fail "apt-get could not download ${missing[*]}"
}
for deb in "$into"/.apt/debs/*.deb; do
    dpkg-deb -x "$deb" "$into"
    dpkg-deb -f "$deb" Package Version | sed 's/^[^:]*: //' | paste -sd' ' >>"$into/.packages"
done
# Nobody is to get anything by a set-user-id program in a build folder.
chmod -R u-s,g-s "$into/usr"
rm -rf "$into/.apt"

# What runs them: each finds the libraries beside it, wherever the folder is.
mkdir "$into/bin"
# shellcheck disable=SC2016 # for the scripts to expand
libraries=$(cd "$into" && find usr/lib -maxdepth 2 -name '*.so.*' -printf '%h\n' | sort -u | sed 's|^|$here/|' | paste -sd:)
for program in docker-registry skopeo podman buildah crun conmon containerd ctr; do
    cat >"$into/bin/$program" <<EOF
#!/bin/sh
here=\$(dirname "\$(readlink -f "\$0")")/..
export LD_LIBRARY_PATH="$libraries"
exec "\$here/usr/bin/$program" "\$@"
EOF
    chmod +x "$into/bin/$program"
    # crun leaves a folder in /run for the asking.
    [ "$program" = crun ] || "$into/bin/$program" --version >/dev/null || fail "$program does not start"
done
echo "$(du -sm "$into" | cut -f1) MB"
printf '%s' "$wanted" >"$into/.pins"
