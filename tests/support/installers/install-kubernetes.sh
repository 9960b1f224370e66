#!/usr/bin/env bash
# Builds a control plane of Kubernetes into .tools/kubernetes-VERSION: kube-apiserver, kube-controller-manager, kubectl
# and etcd, for `make k8s-test`. It takes 10 to 30 minutes the first time, 4 GB of memory and 3 GB of Go's caches.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. tests/support/installers/packages.sh

version=${1:?usage: tests/support/installers/install-kubernetes.sh VERSION}
target="$PWD/.tools/kubernetes-$version"
modules=tests/support/installers/kubernetes
oldest_go=$(sed -n 's/^go //p' "$modules/go.mod")

missing=($(missing_packages go=golang-go openssl=openssl))
if ((${#missing[@]})) && can_install_packages; then
    install_packages "${missing[@]}"
fi
if ! has_go "$oldest_go"; then
    echo "Kubernetes $version is built with Go $oldest_go or later; here is $(go env GOVERSION 2>/dev/null || echo none)." >&2
    exit 1
fi
if ! grep -q "k8s.io/kubernetes v$version\$" "$modules/go.mod"; then
    echo "$modules/go.mod names another version of Kubernetes than $version" >&2
    exit 1
fi

echo "building Kubernetes $version and etcd; the first time that takes 10 to 30 minutes"
rm -rf "$target"
mkdir -p "$target"
flags="-s -w -X k8s.io/component-base/version.gitVersion=v$version -X k8s.io/client-go/pkg/version.gitVersion=v$version"
# The versions and checksums of go.mod and go.sum count, and are not changed.
cd "$modules"
export GOTOOLCHAIN=local CGO_ENABLED=0
nice go build -mod=readonly -trimpath -ldflags "$flags" -o "$target/" \
    k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager k8s.io/kubernetes/cmd/kubectl
nice go build -mod=readonly -trimpath -ldflags "-s -w" -o "$target/etcd" go.etcd.io/etcd/server/v3
touch "$target/.complete"
