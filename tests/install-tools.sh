#!/usr/bin/env bash
# Installs the small programs with which the tests make disks fail; where that is not possible these tests are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/packages.sh

missing=()
command -v strace >/dev/null || missing+=(strace)
PATH="$PATH:/usr/sbin:/sbin" command -v mkfs.ext4 >/dev/null || missing+=(e2fsprogs)
PATH="$PATH:/usr/sbin:/sbin" command -v mount >/dev/null || missing+=(mount)
if ((${#missing[@]} == 0)); then
    exit 0
fi
if ! can_install_packages; then
    echo "Without ${missing[*]} the tests of failing disks are skipped; on Debian: sudo apt-get install ${missing[*]}" >&2
    exit 0
fi
install_packages "${missing[@]}"
