#!/usr/bin/env bash
# Builds the image of the working tree, to be tested, with image/builder.sh, which it gives the tools.
# Leaves in DIRECTORY the files of the image (root/) and what it says of itself (image.json).
set -euo pipefail
cd "$(dirname "$0")/../.."
. image/builder.sh
. tests/support/installers/packages.sh

directory=${1:?usage: tests/product/build-image.sh DIRECTORY}
testing=(unshare setpriv nsenter)
missing=($(missing_packages mmdebstrap=mmdebstrap buildah=buildah))
if ((${#missing[@]})) && can_install_packages; then
    install_packages "${missing[@]}"
fi
hindrance=$(image_hindrance "${testing[@]}")
if [[ -n $hindrance ]]; then
    echo "The image cannot be tested here: $hindrance. Elsewhere: docker build --tag connector ." >&2
    exit 1
fi

rm -rf "$directory"
mkdir -p "$directory/work"
directory=$(realpath "$directory")
trap 'rm -rf "$directory/work"' EXIT
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s)
export SOURCE_DATE_EPOCH

image_work_in "$directory/work"
image_secrets
echo "making a Debian base"
image_base
echo "building the image"
image_build .
"${image_storage[@]}" inspect --type image localhost/connector >"$directory/image.json"
container=$("${image_storage[@]}" from localhost/connector)
cp --archive "$("${image_storage[@]}" mount "$container")" "$directory/root"
echo "the image is in $directory"
