#!/usr/bin/env bash
# Installs the browser in which the tests look at the status page; where that is not possible these tests are skipped.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. tests/support/installers/packages.sh

missing=($(missing_packages chromium=chromium chromedriver=chromium-driver))
if ((${#missing[@]} == 0)); then
    exit 0
fi
if ! can_install_packages; then
    echo "Without ${missing[*]} the tests of the status page are skipped; on Debian: sudo apt-get install ${missing[*]}" >&2
    exit 0
fi
# On Ubuntu the packages of this name only fetch a snap, which does not run everywhere.
if ! install_packages "${missing[@]}" fonts-dejavu-core; then
    echo "${missing[*]} cannot be installed here: the tests of the status page are skipped" >&2
    exit 0
fi
