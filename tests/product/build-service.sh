#!/usr/bin/env bash
# What `make systemd-test` needs, in a directory: the bundle of the working tree, and an empty Debian of a release with systemd
# and Python (kept for a day); as root on Debian or Ubuntu.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/support/installers/packages.sh
. tests/product/fresh_machine.sh

place=$1 suite=$2
if ! can_install_packages; then
    echo "make systemd-test makes a Debian of its own, and so needs root on Debian or Ubuntu" >&2
    exit 1
fi
missing=($(missing_packages mmdebstrap=mmdebstrap systemd-nspawn=systemd-container ip=iproute2 unshare=util-linux))
((${#missing[@]} == 0)) || install_packages "${missing[@]}"
mkdir -p "$place"
rm -f "$place"/*.tar
.venv/bin/python -m tools.offline "$place"
if [[ -z $(find "$place/debian" -maxdepth 0 -mtime 0 2>/dev/null) ]]; then
    rm -rf --one-file-system "$place/debian"
    own=$(own_suite)
    # Of another release than this machine's, from where this machine gets its own.
    mapfile -t sources < <(debian_sources "$own" | sed "s/\b$own\b/$suite/")
    reaching_apt >"$place/apt.conf"
    mmdebstrap --quiet --variant=minbase --aptopt="$place/apt.conf" --include=systemd,systemd-sysv,python3 \
        "$suite" "$place/debian" "${sources[@]}"
    touch "$place/debian"
fi
