#!/usr/bin/env bash
# Builds a tool of `make chart-test` from the Go modules that go.mod and go.sum of its folder here name, into
# .tools/NAME-VERSION/PROGRAM. Skipped where there is no Go that can: the tests that need it are skipped as well.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. tests/support/installers/packages.sh

usage="tests/support/installers/install-go-tool.sh NAME VERSION MODULE PACKAGE PROGRAM"
name=${1:?usage: $usage} version=${2:?usage: $usage} module=${3:?usage: $usage} package=${4:?usage: $usage}
program=${5:?usage: $usage}
sources="tests/support/installers/$name"
target="$PWD/.tools/$name-$version"
oldest_go=$(sed -n 's/^go //p' "$sources/go.mod")

if ! has_go "$oldest_go"; then
    echo "Without Go $oldest_go or later, to build $program, the tests that need it are skipped." >&2
    exit 0
fi
if ! grep -q "^require $module v$version\$" "$sources/go.mod"; then
    echo "$sources/go.mod names another version of $module than $version" >&2
    exit 1
fi

echo "building $program $version"
rm -rf "$target"
# The versions and checksums of go.mod and go.sum count, and are not changed.
(cd "$sources" && GOTOOLCHAIN=local go build -mod=readonly -trimpath -o "$target/$program" "$package")
touch "$target/.complete"
