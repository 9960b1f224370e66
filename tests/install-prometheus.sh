#!/usr/bin/env bash
# Installs Prometheus with promtool; where that is not possible the tests with a real Prometheus are skipped.
set -euo pipefail

if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    exit 0
fi
if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "Without prometheus the tests of scraping, alerts and dashboard are skipped; on Debian: sudo apt-get install prometheus" >&2
    exit 0
fi
echo "installing prometheus"
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends prometheus >/dev/null
# The package starts a server on port 9090, which nobody here asked for.
if [[ -d /run/systemd/system ]]; then
    systemctl disable --now prometheus
fi
