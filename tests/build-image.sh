#!/usr/bin/env bash
# Builds the image without a registry of images: a Debian base of the machine's own packages, then the Dockerfile.
# Leaves in DIRECTORY the files of the image (root/) and what it says of itself (image.json).
set -euo pipefail
cd "$(dirname "$0")/.."

directory=${1:?usage: tests/build-image.sh DIRECTORY}
suite=bookworm
tools=(mmdebstrap buildah unshare setpriv nsenter)

missing() {
    for tool in "${tools[@]}"; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "$tool" >/dev/null || echo "$tool"
    done
}

if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "The image is tested as root on Debian or Ubuntu: with mmdebstrap a base is made of their packages, and buildah" \
        "builds on it. Elsewhere: docker build --tag connector ." >&2
    exit 1
fi
if [[ -n $(missing) ]]; then
    echo "installing mmdebstrap and buildah"
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends mmdebstrap buildah >/dev/null
fi
if [[ -n $(missing) ]]; then
    echo "These are needed and cannot be installed here: $(missing | tr '\n' ' ')" >&2
    exit 1
fi

rm -rf "$directory"
mkdir -p "$directory"
directory=$(realpath "$directory")
storage=(buildah --root "$directory/storage" --runroot "$directory/run" --storage-driver vfs)
trap 'rm -rf "$directory/storage" "$directory/run" "$directory/base.tar" "$directory/secrets"' EXIT

echo "making a Debian base"
mmdebstrap --quiet --variant=minbase "$suite" "$directory/base.tar"
printf 'FROM scratch\nADD base.tar /\n' |
    "${storage[@]}" bud --quiet --file - --tag localhost/base "$directory" >/dev/null

# How this machine reaches its package index; given to one step of the build, and not in the image.
secrets="$directory/secrets"
mkdir "$secrets"
authorities=$(python3 -m pip config get global.cert 2>/dev/null || echo /etc/ssl/certs/ca-certificates.crt)
if [[ -e $authorities ]]; then
    cp "$authorities" "$secrets/authorities.crt"
else
    touch "$secrets/authorities.crt"
fi
{
    echo "[global]"
    [[ ! -s $secrets/authorities.crt ]] || echo "cert = /run/authorities.crt"
    index=$(python3 -m pip config get global.index-url 2>/dev/null || true)
    [[ -z $index ]] || echo "index-url = $index"
} >"$secrets/pip.conf"

echo "building the image"
"${storage[@]}" bud --quiet --isolation chroot --network host --format docker --build-arg BASE_IMAGE=localhost/base \
    --secret "id=pip.conf,src=$secrets/pip.conf" --secret "id=authorities,src=$secrets/authorities.crt" \
    --tag localhost/connector . >"$directory/build.log" 2>&1 || { tail -n 40 "$directory/build.log" >&2; exit 1; }
"${storage[@]}" inspect --type image localhost/connector >"$directory/image.json"
container=$("${storage[@]}" from localhost/connector)
cp --archive "$("${storage[@]}" mount "$container")" "$directory/root"
echo "the image is in $directory"
