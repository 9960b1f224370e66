#!/usr/bin/env bash
# Runs a command as process 1 among the files of an image, as a container runtime does with a read-only root file system:
#   unshare --mount --pid --fork tests/product/run-image.sh ROOT VOLUME USER:GROUP[:MORE GROUPS] DIRECTORY COMMAND...
# Writable are the volume, which is at /data, and /tmp. The user has no capabilities and cannot get any.
set -euo pipefail

root=$1 volume=$2 directory=$4
IFS=: read -r user group more <<<"$3"
groups=--clear-groups
if [[ -n $more ]]; then
    groups="--groups=$more"
fi
shift 4

/usr/bin/mount --bind "$root" "$root"
/usr/bin/mount --bind "$volume" "$root/data"
/usr/bin/mount -t proc proc "$root/proc"
/usr/bin/mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
/usr/bin/mount --rbind /dev "$root/dev"
/usr/bin/mount -o remount,bind,ro "$root"
exec /usr/sbin/chroot "$root" /usr/bin/setpriv --reuid "$user" --regid "$group" "$groups" \
    --no-new-privs --inh-caps=-all --bounding-set=-all /usr/bin/env --chdir="$directory" "$@"
