#!/usr/bin/env bash
# Installs mosquitto, which the tests start by themselves, and its clients, which the tutorial calls; no broker is left
# running.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. tests/support/installers/packages.sh

missing=($(missing_packages mosquitto=mosquitto mosquitto_passwd=mosquitto mosquitto_pub=mosquitto-clients mosquitto_sub=mosquitto-clients))
if ((${#missing[@]} == 0)); then
    exit 0
fi
if ! can_install_packages; then
    echo "The tests run a real mosquitto. Install it and try again;" >&2
    echo "on Debian and Ubuntu: sudo apt-get install ${missing[*]}, on macOS: brew install mosquitto" >&2
    exit 1
fi
install_packages "${missing[@]}"
stop_service mosquitto
