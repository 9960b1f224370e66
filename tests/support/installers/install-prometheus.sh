#!/usr/bin/env bash
# Installs Prometheus with promtool; where that is not possible the tests with a real Prometheus are skipped.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. tests/support/installers/packages.sh

missing=($(missing_packages prometheus=prometheus promtool=prometheus))
if ((${#missing[@]} == 0)); then
    exit 0
fi
if ! can_install_packages; then
    echo "Without prometheus the tests of scraping, alerts and dashboard are skipped; on Debian: sudo apt-get install prometheus" >&2
    exit 0
fi
install_packages "${missing[@]}"
stop_service prometheus
