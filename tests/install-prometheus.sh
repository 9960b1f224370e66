#!/usr/bin/env bash
# Installs Prometheus with promtool; where that is not possible the tests with a real Prometheus are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/packages.sh

if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    exit 0
fi
if ! can_install_packages; then
    echo "Without prometheus the tests of scraping, alerts and dashboard are skipped; on Debian: sudo apt-get install prometheus" >&2
    exit 0
fi
install_packages prometheus
# The package starts a server on port 9090, which nobody here asked for.
if [[ -d /run/systemd/system ]]; then
    systemctl disable --now prometheus
fi
