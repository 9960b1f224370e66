#!/usr/bin/env bash
# Builds kustomize into .tools/kustomize-VERSION, and puts the Prometheus operator's definitions beside it, against which
# the tests hold k8s/. Skipped where there is no Go that can: the tests then look for kubectl, which has kustomize in it.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. tests/support/installers/packages.sh

version=${1:?usage: tests/support/installers/install-kustomize.sh VERSION}
target="$PWD/.tools/kustomize-$version"
oldest_go=$(sed -n 's/^go //p' tests/support/installers/kustomize/go.mod)
operator=github.com/prometheus-operator/prometheus-operator
operator_version=v0.85.0
operator_sum=h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=

if ! has_go "$oldest_go"; then
    echo "Without Go $oldest_go or later, to build kustomize, and without kubectl the tests of k8s/ are skipped." >&2
    exit 0
fi
if ! grep -q "sigs.k8s.io/kustomize/kustomize/v5 v$version\$" tests/support/installers/kustomize/go.mod; then
    echo "tests/support/installers/kustomize/go.mod names another version of kustomize than $version" >&2
    exit 1
fi

echo "building kustomize $version"
rm -rf "$target"
# The versions and checksums of go.mod and go.sum count, and are not changed.
(cd tests/support/installers/kustomize && GOTOOLCHAIN=local go build -mod=readonly -trimpath -o "$target/kustomize" \
    sigs.k8s.io/kustomize/kustomize/v5)
# Only the files of the module are wanted, and its checksum says that they are the right ones.
module=$(cd "$target" && GOTOOLCHAIN=local go mod download -json "$operator@$operator_version")
if ! grep -q "\"Sum\": \"$operator_sum\"" <<<"$module"; then
    echo "$operator $operator_version has another checksum than $operator_sum" >&2
    exit 1
fi
files=$(sed -n 's/^\t"Dir": "\(.*\)",$/\1/p' <<<"$module")
mkdir "$target/definitions"
install -m 0644 "$files"/example/prometheus-operator-crd/monitoring.coreos.com_{podmonitors,prometheusrules}.yaml \
    "$target/definitions"
touch "$target/.complete"
