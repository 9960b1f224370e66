#!/usr/bin/env bash
# Installs what Connector is compared with: mosquitto_sub and kcat; Telegraf, built into .tools/telegraf-VERSION; and
# mq-bridge, a package of Python, into an environment of its own, .tools/mq-bridge-VERSION.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/support/installers/packages.sh

version=${1:?usage: bench/install-peers.sh TELEGRAF_VERSION MQ_BRIDGE_VERSION}
mq_bridge_version=${2:?usage: bench/install-peers.sh TELEGRAF_VERSION MQ_BRIDGE_VERSION}
mq_bridge_target="$PWD/.tools/mq-bridge-$mq_bridge_version"
target="$PWD/.tools/telegraf-$version"
modules="$PWD/bench/telegraf"
# Only what the comparison uses: the whole program has ten times the size, and takes minutes to build.
tags='custom,inputs.mqtt_consumer,outputs.kafka,parsers.value,serializers.template,serializers.influx'

install_clients() {
    local missing
    missing=($(missing_packages mosquitto_sub=mosquitto-clients kcat=kcat))
    if ((${#missing[@]} == 0)); then
        return
    fi
    if ! can_install_packages; then
        echo "Without ${missing[*]} the comparison is smaller; on Debian: sudo apt-get install ${missing[*]}" >&2
        return
    fi
    install_packages "${missing[@]}"
}

go_is_new_enough() {
    local wanted found
    wanted=$(awk '$1 == "go" { print $2 }' "$modules/go.mod")
    if ! command -v go >/dev/null; then
        echo "Without Go $wanted or later, to build it, Telegraf is left out of the comparison." >&2
        return 1
    fi
    # A Go that is too old would say so in the words of its compiler; a newer one must not be fetched.
    found=$(GOTOOLCHAIN=local go env GOVERSION | sed 's/^go//')
    if [[ $(printf '%s\n' "$wanted" "$found" | sort --version-sort | head -n 1) != "$wanted" ]]; then
        echo "Without Go $wanted or later, to build it, Telegraf is left out of the comparison; here is Go $found." >&2
        return 1
    fi
}

build_telegraf() {
    echo "building Telegraf $version"
    # In a copy, as -mod=mod, which a go.mod that names no indirect dependency needs, may write into both files. What
    # was not pinned would appear there.
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
    cp "$modules/go.mod" "$modules/go.sum" "$copy"
    (cd "$copy" && GOTOOLCHAIN=local GOFLAGS=-mod=mod go build -trimpath -ldflags='-s -w' -tags "$tags" \
        -o "$copy/telegraf" github.com/influxdata/telegraf/cmd/telegraf)
    if ! cmp -s "$copy/go.mod" "$modules/go.mod" || ! cmp -s "$copy/go.sum" "$modules/go.sum"; then
        echo "The build used modules that bench/telegraf/go.mod and go.sum do not pin; Telegraf is not installed." >&2
        exit 1
    fi
    mkdir -p "$target"
    mv "$copy/telegraf" "$target/telegraf"
}

# Not into .venv: what it needs must not change what Connector is measured with.
install_mq_bridge() {
    if [[ "$mq_bridge_target/.complete" -nt requirements/mq-bridge.txt ]]; then
        return
    fi
    if ! grep -q "^mq-bridge==$mq_bridge_version " requirements/mq-bridge.txt; then
        echo "requirements/mq-bridge.txt names another version of mq-bridge than $mq_bridge_version" >&2
        exit 1
    fi
    echo "installing mq-bridge $mq_bridge_version"
    rm -rf "$mq_bridge_target"
    # Not for each kind of machine there is a wheel.
    if "${PYTHON:-python3}" -m venv "$mq_bridge_target" &&
        "$mq_bridge_target/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
            --require-hashes --requirement requirements/mq-bridge.txt; then
        touch "$mq_bridge_target/.complete"
    else
        rm -rf "$mq_bridge_target"
        echo "mq-bridge could not be installed, and is left out of the comparison." >&2
    fi
}

if ! grep -q "github.com/influxdata/telegraf v$version " "$modules/go.mod"; then
    echo "bench/telegraf/go.mod names another version of Telegraf than $version" >&2
    exit 1
fi
install_clients
install_mq_bridge
if [[ -x "$target/telegraf" && "$target/telegraf" -nt "$modules/go.sum" ]]; then
    exit 0
fi
if go_is_new_enough; then
    build_telegraf
fi
