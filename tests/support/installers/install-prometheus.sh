#!/usr/bin/env bash
# Installs Prometheus with promtool, and Alertmanager with amtool; where that is not possible the tests with a real one of
# them are skipped.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. tests/support/installers/packages.sh

missing=($(missing_packages prometheus=prometheus promtool=prometheus \
    prometheus-alertmanager=prometheus-alertmanager amtool=prometheus-alertmanager))
if ((${#missing[@]} == 0)); then
    exit 0
fi
if ! can_install_packages; then
    echo "Without prometheus the tests of scraping, alerts and dashboard are skipped, without prometheus-alertmanager those" \
        "of what it sends; on Debian: sudo apt-get install prometheus prometheus-alertmanager" >&2
    exit 0
fi
install_packages "${missing[@]}"
for package in "${missing[@]}"; do
    stop_service "$package"
done
