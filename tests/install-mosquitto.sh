#!/usr/bin/env bash
# Installs the program mosquitto, which the tests start by themselves; no broker is left running.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/packages.sh

# Debian puts it where the PATH of an ordinary user does not look.
if PATH="$PATH:/usr/sbin" command -v mosquitto >/dev/null; then
    echo "mosquitto is installed"
    exit 0
fi

if ! can_install_packages; then
    echo "The tests run a real mosquitto. Install it and try again;" >&2
    echo "on Debian and Ubuntu: sudo apt-get install mosquitto, on macOS: brew install mosquitto" >&2
    exit 1
fi

install_packages mosquitto
# The package starts a broker on port 1883, which nobody here asked for.
if [[ -d /run/systemd/system ]]; then
    systemctl disable --now mosquitto
fi
