#!/usr/bin/env bash
# Builds the image of a release: image/release.sh SOURCE ARCHIVE PACKAGES VERSION REVISION, with SOURCE_DATE_EPOCH.
# ARCHIVE is for tools/image_archive.py, which makes the last of it the same each time; PACKAGES, what Debian has in the
# image, for tools/image_packages.py.
set -euo pipefail
. "$(dirname "$0")/builder.sh"

source=$1 archive=$2 packages=$3 version=$4 revision=$5
export SOURCE_DATE_EPOCH
umask 022
work=$(mktemp --directory)
trap 'rm -rf "$work"' EXIT
image_work_in "$work"
image_secrets
image_base
image_build "$source" --build-arg "VERSION=$version" --build-arg "REVISION=$revision"
"${image_storage[@]}" push --quiet localhost/connector "docker-archive:$archive"
image_packages >"$packages"
