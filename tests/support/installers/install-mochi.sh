#!/usr/bin/env bash
# Builds tests/support/installers/mochi, a broker of mochi-mqtt, into .tools/mochi-VERSION, where the tests find it.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. tests/support/installers/packages.sh

version=${1:?usage: tests/support/installers/install-mochi.sh VERSION}
target="$PWD/.tools/mochi-$version"

missing=($(missing_packages go=golang-go))
if ((${#missing[@]})); then
    if can_install_packages; then
        install_packages "${missing[@]}"
    else
        echo "Without Go 1.21 or later, to build mochi-mqtt, the tests with that broker are skipped." >&2
        exit 0
    fi
fi
# A Go that is too old (as in Debian 12) would say so in the words of its compiler; a newer one must not be fetched.
if ! has_go 1.21; then
    echo "Without Go 1.21 or later, to build mochi-mqtt, the tests with that broker are skipped; here is" \
        "$(go env GOVERSION)." >&2
    exit 0
fi
if ! grep -q "mochi-mqtt/server/v2 v$version\$" tests/support/installers/mochi/go.mod; then
    echo "tests/support/installers/mochi/go.mod names another version of mochi-mqtt than $version" >&2
    exit 1
fi

echo "building mochi-mqtt $version"
rm -rf "$target"
# The versions and checksums of go.mod and go.sum count, and are not changed.
(cd tests/support/installers/mochi && GOTOOLCHAIN=local go build -mod=readonly -trimpath -o "$target/mochi" .)
touch "$target/.complete"
