#!/usr/bin/env bash
# Installs the small programs that tests call. Where that is not possible the tests of failing disks are skipped, and
# those of the tutorial and of releases fail and say what they miss.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. tests/support/installers/packages.sh

missing=($(missing_packages curl=curl git=git strace=strace mkfs.ext4=e2fsprogs \
    mount=mount umount=mount losetup=mount systemd-analyze=systemd))
if ((${#missing[@]} == 0)); then
    exit 0
fi
if ! can_install_packages; then
    echo "Without ${missing[*]} some tests are skipped or fail; on Debian: sudo apt-get install ${missing[*]}" >&2
    exit 0
fi
install_packages "${missing[@]}"
